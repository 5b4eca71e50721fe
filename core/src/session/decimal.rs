//! From a number in JSON to the nearest double, exactly, without tables and without arithmetic of floats. The standard
//! library's `parse` is ten times as fast, and takes thirteen kilobytes of flash that a device does not have.
//!
//! The digits are one integer D, and the number is D * 10^e, which is D * 5^e * 2^e: only the fives are work. They are
//! multiplied into D, or divided out of it behind enough zeros for 64 bits of quotient. Of what falls off at the end it
//! only matters whether it is zero.

/// Significant digits that are worked with. A double has 767 at most, and what lies half-way between two has 768; of those
/// behind them it only matters whether one is not zero.
const DIGITS: u16 = 768;

/// The largest integer: 768 digits have 2552 bits. The largest divisor, 5^1091 (for 768 digits of a number that is just not
/// zero), has 2534, and in front of it there are 64 at least.
const WORDS: usize = 84;

/// As many fives as a word can hold.
const FIVES: u32 = 13;

const INFINITY: u64 = 0x7ff << 52;

/// The bits of the double that is nearest to a number of RFC 8259 section 6, the even one if two are. What is too large
/// becomes infinity.
///
/// A few words are multiplied or divided for each digit, a thousand for an exponent near the end of the range.
pub(super) fn parse(number: &str) -> u64 {
    let Decimal { negative, digits, mut integer, exponent, mut inexact } = Decimal::read(number);
    let sign = u64::from(negative) << 63;
    // It is 0.1 at least, and less than 1, times ten to the power of this. The smallest double is 4.9e-324.
    let power = exponent.saturating_add(digits.into());
    if digits == 0 || power < -323 {
        return sign;
    }
    // The largest is 1.8e308.
    let Some(mut fives) = i32::try_from(exponent).ok().filter(|_| power <= 309) else {
        return sign | INFINITY;
    };
    let mut twos = fives;
    while fives > 0 {
        let some = fives.unsigned_abs().min(FIVES);
        integer.multiply(5u32.pow(some), 0);
        fives = fives.saturating_sub_unsigned(some);
    }
    // A five has 2.33 bits at most, and a word has 32.
    let words = 4 + fives.unsigned_abs() * 7 / 96;
    while fives < 0 && integer.len < words {
        integer.multiply(1 << 31, 0);
        twos -= 31;
    }
    while fives < 0 {
        let some = fives.unsigned_abs().min(FIVES);
        inexact |= integer.divide(5u32.pow(some));
        fives = fives.saturating_add_unsigned(some);
    }
    let (top, dropped, more_twos) = integer.top();
    sign | round(top | u64::from(inexact || dropped), twos + more_twos)
}

/// The double nearest to an integer, whose highest bit is set, times a power of two. The lowest bit stands for all that is below.
fn round(mut integer: u64, twos: i32) -> u64 {
    // How an exponent is written: zero is for those below the normal ones, which have the same power as one.
    let mut exponent = twos + 63 + 1023;
    while exponent < 1 {
        integer = integer >> 1 | integer & 1;
        exponent += 1;
    }
    if exponent > 0x7fe {
        return INFINITY;
    }
    let (kept, rest) = (integer >> 11, integer & 0x7ff);
    let up = rest + (kept & 1) > 0x400;
    // The highest bit that is kept counts into the exponent, and so does what is carried, up to infinity.
    (u64::from(exponent.unsigned_abs() - 1) << 52) + kept + u64::from(up)
}

/// A number as it is written: an integer times a power of ten.
struct Decimal {
    negative: bool,
    /// Those of the integer.
    digits: u16,
    integer: Integer,
    exponent: i64,
    /// It is a little more than that.
    inexact: bool,
}

impl Decimal {
    fn read(number: &str) -> Self {
        let integer = Integer { words: [0; WORDS], len: 0 };
        let mut decimal = Self { negative: false, digits: 0, integer, exponent: 0, inexact: false };
        let mut bytes = number.bytes();
        let mut fraction = false;
        for byte in bytes.by_ref() {
            match byte {
                b'-' => decimal.negative = true,
                b'.' => fraction = true,
                b'0'..=b'9' => decimal.push(byte - b'0', fraction),
                _ => break,
            }
        }
        let (mut exponent, mut negative) = (0i64, false);
        for byte in bytes {
            match byte {
                b'-' => negative = true,
                // No text is so long that its digits make up for this.
                b'0'..=b'9' if exponent < 1 << 56 => exponent = exponent * 10 + i64::from(byte - b'0'),
                _ => {}
            }
        }
        decimal.exponent += if negative { -exponent } else { exponent };
        decimal
    }

    fn push(&mut self, digit: u8, fraction: bool) {
        if self.digits < DIGITS {
            self.integer.multiply(10, digit.into());
            // Leading zeros leave nothing behind.
            self.digits += u16::from(self.integer.len > 0);
            self.exponent -= i64::from(fraction);
        } else {
            self.inexact |= digit > 0;
            self.exponent += i64::from(!fraction);
        }
    }
}

/// The lowest word first. The last of the `len` is not zero.
struct Integer {
    words: [u32; WORDS],
    len: u32,
}

impl Integer {
    fn words(&mut self) -> impl DoubleEndedIterator<Item = &mut u32> {
        let len = usize::try_from(self.len).unwrap_or(WORDS);
        self.words.get_mut(..len).unwrap_or_default().iter_mut()
    }

    fn multiply(&mut self, by: u32, add: u32) {
        let mut carry = add;
        for word in self.words() {
            let wide = u64::from(*word) * u64::from(by) + u64::from(carry);
            (*word, carry) = halves(wide);
        }
        if carry > 0 {
            self.len += 1;
            if let Some(word) = self.words().next_back() {
                *word = carry;
            }
        }
    }

    /// True when something is left over.
    fn divide(&mut self, by: u32) -> bool {
        // Never zero: now the compiler knows it, too.
        let by = u64::from(by.max(1));
        let mut rest = 0;
        for word in self.words().rev() {
            let wide = rest << 32 | u64::from(*word);
            (*word, rest) = (halves(wide / by).0, wide % by);
        }
        while self.words().next_back() == Some(&mut 0) {
            self.len -= 1;
        }
        rest > 0
    }

    /// Its highest 64 bits, the first of them set, whether one below is set too, and the power of two.
    fn top(&mut self) -> (u64, bool, i32) {
        let twos = self.len.cast_signed() * 32 - 64;
        let mut words = self.words().rev().map(|word| u64::from(*word));
        let mut next = || words.next().unwrap_or_default();
        let (high, low) = (next() << 32 | next(), next());
        let zeros = high.leading_zeros();
        let (dropped, carried) = halves(low << (zeros & 31));
        (
            high << zeros | u64::from(carried),
            dropped > 0 || words.any(|word| word > 0),
            twos - zeros.cast_signed(),
        )
    }
}

/// The lower and the upper one.
fn halves(wide: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = wide.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::{String, ToString};
    use std::{format, vec::Vec};

    /// The standard library's parser is another algorithm altogether.
    fn check(number: &str) {
        let expected = number.parse::<f64>().unwrap().to_bits();
        assert_eq!(parse(number), expected, "{number}: {}", f64::from_bits(parse(number)));
    }

    /// All digits of a double, and of what lies half-way to the next one, which ends in "5".
    fn half_way(bits: u64) -> String {
        let magnitude = f64::from_bits(bits & !(1 << 63));
        // The half is 2^-1075 at least: its digits end there.
        let whole = |value: f64| format!("{value:.1080}").into_bytes();
        let next = f64::from_bits(magnitude.to_bits() + 1);
        let next = if next.is_finite() { whole(next) } else { return magnitude.to_string() };
        let mut low = whole(magnitude);
        low.splice(..0, std::iter::repeat_n(b'0', next.len() - low.len()));
        // The mean, digit by digit.
        let (mut sum, mut carry) = (Vec::new(), 0);
        for (a, b) in low.iter().zip(&next).rev().filter(|(a, _)| **a != b'.') {
            let digit = (a - b'0') + (b - b'0') + carry;
            (carry, _) = (digit / 10, sum.push(digit % 10));
        }
        let mut rest = carry;
        let point = sum.len() - 1080;
        let mut out = String::new();
        for (at, digit) in sum.iter().rev().enumerate() {
            if at == point {
                out.push('.');
            }
            let twice = rest * 10 + digit;
            out.push(char::from(b'0' + twice / 2));
            rest = twice % 2;
        }
        assert_eq!(rest, 0);
        out.trim_start_matches('0').trim_end_matches('0').to_string()
    }

    #[test]
    fn the_ends_of_the_range() {
        for number in [
            "0",
            "-0",
            "0.0",
            "-0.0",
            "0e9",
            "-0e-9999999999999999999999",
            "1",
            "10",
            "1e0",
            "0.1",
            "-21.5",
            "1E+2",
            "123456789012345678901234567890",
            "9007199254740992.9",
            "9007199254740993",
            "9007199254740993.0000001",
            // The smallest, and a half of it: exactly that is even without it.
            "4.9e-324",
            "5e-324",
            "2.5e-324",
            "2.4e-324",
            "1e-324",
            "9.9e-325",
            "1e-325",
            "1e-400",
            "3e-324",
            "7.5e-324",
            // Below and above the smallest that is normal.
            "2.2250738585072011e-308",
            "2.2250738585072012e-308",
            "2.2250738585072014e-308",
            "2.2250738585072009e-308",
            // The largest, and what is nearer to infinity.
            "1.7976931348623157e308",
            "1.7976931348623158e308",
            "1.7976931348623159e308",
            "1.8e308",
            "1e309",
            "1e310",
            "0.000001e314",
            "1e99999999999999999999999999999",
            "1e-99999999999999999999999999999",
            "-1e999",
        ] {
            check(number);
        }
        let text = |head: &str, zeros: usize, tail: &str| format!("{head}{}{tail}", "0".repeat(zeros));
        for zeros in [300, 308, 309, 322, 323, 324, 767, 768, 769, 5000] {
            check(&text("1", zeros, &format!("e-{zeros}")));
            check(&text("1", zeros, &format!(".5e-{zeros}")));
            check(&text("0.", zeros, &format!("7e{zeros}")));
            check(&text("1", zeros, ""));
            check(&text("0.", zeros, "1"));
            // A half and nothing; a half and a little.
            check(&text("9007199254740993.", zeros, ""));
            check(&text("9007199254740993.", zeros, "1"));
        }
        // As many digits as matter, in front of more.
        for bits in [0, 1, 2, 0x000f_ffff_ffff_ffff, 0x0010_0000_0000_0000, 0x7fef_ffff_ffff_fffe] {
            let digits = half_way(bits);
            for tail in ["", "0", "1", "00000000000000000000001", &"0".repeat(800), &text("", 800, "1")] {
                check(&format!("{digits}{tail}"));
            }
        }
        let longest = half_way(0x000f_ffff_ffff_ffff);
        assert_eq!(longest.trim_start_matches(['.', '0']).len(), DIGITS.into());
    }

    /// Powers of two and of ten, and their neighbours on either side.
    #[test]
    fn each_power() {
        for exponent in 0..0x7ffu64 {
            for bits in [exponent << 52, (exponent << 52) + 1, (exponent << 52).saturating_sub(1)] {
                check(&format!("{:e}", f64::from_bits(bits)));
                check(&format!("{:.40e}", f64::from_bits(bits)));
            }
        }
        for exponent in -400..400 {
            for digits in ["1", "9", "17976931348623157", "4940656458412465441765687928682213723651"] {
                check(&format!("{digits}e{exponent}"));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn any_double_as_it_is_written(bits: u64) {
            let value = f64::from_bits(bits);
            if value.is_finite() {
                check(&value.to_string());
                check(&format!("{value:e}"));
                check(&format!("{value:.17e}"));
            }
        }

        #[test]
        fn any_digits_and_exponent(number in "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,3})?") {
            check(&number);
        }

        /// In JSON they may be as long as a message.
        #[test]
        fn many_digits(number in "(0|[1-9][0-9]{0,900})\\.[0-9]{1,900}(e[+-]?[0-9]{1,3})?") {
            check(&number);
        }

        #[test]
        fn half_way_between_two_and_a_little_beside(bits: u64) {
            let value = f64::from_bits(bits);
            if value.is_finite() {
                let digits = half_way(bits);
                check(&digits);
                check(&format!("{digits}1"));
                let mut less = digits;
                less.pop();
                check(&format!("{less}49"));
            }
        }
    }
}
