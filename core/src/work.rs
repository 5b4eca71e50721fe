//! Counts the bytes that are moved or looked at, for the tests that show that the work is linear. Elsewhere it is
//! nothing.

#[cfg(test)]
std::thread_local! {
    static COUNT: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

/// Counts work over so many bytes.
pub(crate) fn count(_bytes: usize) {
    #[cfg(test)]
    COUNT.with(|count| count.set(count.get() + _bytes));
}

/// What was counted on this thread since the last call.
#[cfg(test)]
pub(crate) fn take() -> usize {
    COUNT.with(|count| count.replace(0))
}
