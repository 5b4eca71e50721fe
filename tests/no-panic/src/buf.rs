//! The lent buffers and time.

use core::hint::black_box;
use core::time::Duration;

use longwire_core::buf::{RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::time::Instant;

use crate::{any, any_bytes};

/// Calls everything in `buf` and `time`.
pub fn all() {
    rx();
    tx();
    time();
}

fn rx() {
    let (mut storage, mut cursor) = ([0; 512], black_box(RxCursor::default()));
    let mut rx = RxBuf::new(any_bytes(&mut storage), &mut cursor);
    let mut more = [0; 64];
    black_box(rx.fill(any_bytes(&mut more)));
    black_box(rx.spare_mut());
    rx.commit(any());
    rx.skip(any());
    rx.keep(any());
    rx.release(any());
    if any() {
        rx.reserve_for_expansion();
    }
    black_box((rx.capacity(), rx.held(), rx.is_full(), rx.kept(), rx.unread()));
    black_box(rx.unread_mut());
    black_box(rx.kept_mut());
    black_box(rx.compact());
    black_box(rx.reborrow());
    black_box(rx.into_parts());
    black_box(cursor.is_idle());
}

fn tx() {
    let (mut storage, mut cursor) = ([0; 512], black_box(TxCursor::default()));
    let mut tx = TxBuf::new(any_bytes(&mut storage), &mut cursor);
    let (mut a, mut b) = ([0; 64], [0; 64]);
    black_box(tx.put(&[any_bytes(&mut a), any_bytes(&mut b)]));
    black_box(tx.append(any()));
    black_box((tx.pending(), tx.capacity(), tx.room()));
    tx.consume(any());
    black_box(tx.reborrow());
    black_box(cursor.is_idle());
}

fn time() {
    let (a, b) = (Instant::from_millis(any()), Instant::from_millis(any()));
    let d = Duration::new(any::<u32>().into(), any::<u32>() % 1_000_000_000);
    black_box((a.after(d), a.since(b), a.as_millis(), a < b));
}
