//! The decompressor of permessage-deflate, lying in a static as it would on a device.
#![no_std]
#![no_main]

use longwire_core::ws::deflate::{Inflate, Window};
use longwire_embassy::Inflater;
use longwire_footprint::{any, read, write};
use static_cell::ConstStaticCell;

static INFLATER: ConstStaticCell<Inflater<4096>> = ConstStaticCell::new(Inflater::new());

#[unsafe(no_mangle)]
extern "C" fn main() {
    let (mut input, mut output) = ([0; 512], [0; 512]);
    let Some(inflater) = INFLATER.try_take() else { return };
    loop {
        let len = read(&mut input);
        let Ok(done) = inflater.inflate(input.get(..len).unwrap_or_default(), &mut output) else { return };
        write(output.get(..done.written).unwrap_or_default());
        inflater.end_message(Window { bits: 12, takeover: any() });
    }
}
