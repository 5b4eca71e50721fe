//! A reader of an event stream.
#![no_std]
#![no_main]

use longwire_core::buf::{RxBuf, RxCursor};
use longwire_core::sse::{Decoder, Step};
use longwire_footprint::{read, write};

#[unsafe(no_mangle)]
extern "C" fn main() {
    let (mut bytes, mut at) = ([0; 512], RxCursor::new());
    let mut rx = RxBuf::new(&mut bytes, &mut at);
    let mut decoder = Decoder::<64>::default();
    loop {
        match decoder.poll(&mut rx) {
            Ok(Step::Event) => {
                write(decoder.event(rx.reborrow()).data);
            }
            Ok(Step::NeedInput) => {
                let n = read(rx.spare_mut());
                rx.commit(n);
            }
            _ => return,
        }
    }
}
