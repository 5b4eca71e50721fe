//! Server-Sent Events.

use core::hint::black_box;
use core::time::Duration;

use longwire_core::buf::{RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::sse::{Decoder, Fields, Step};

use crate::{any, any_bytes, any_str, forget, show};

/// Calls everything in `sse`.
pub fn all() {
    decoder();
    encoder();
}

/// The client's side.
pub fn decoder() {
    let mut decoder = Decoder::<64>::new(any());
    let (mut bytes, mut at) = ([0; 512], RxCursor::default());
    while any() {
        let decoder = forget(&mut decoder);
        let mut rx = RxBuf::new(any_bytes(&mut bytes), forget(&mut at));
        match decoder.poll(&mut rx) {
            Ok(Step::Event) => {
                let event = decoder.event(rx.reborrow());
                black_box((event.name, event.data, event.id, event.data_str().is_ok()));
            }
            Ok(step) => _ = black_box(step),
            Err(error) => show(error),
        }
        black_box((decoder.last_event_id(), decoder.retry()));
        let mut id = [0; 128];
        if let Err(error) = decoder.set_last_event_id(any_bytes(&mut id)) {
            show(error);
        }
        if any() {
            decoder.restart(&mut rx);
        }
    }
}

fn encoder() {
    let (mut a, mut b, mut c, mut d) = ([0; 32], [0; 256], [0; 64], [0; 32]);
    let (mut bytes, mut at) = ([0; 512], TxCursor::default());
    let mut tx = TxBuf::new(any_bytes(&mut bytes), forget(&mut at));
    let fields = Fields {
        name: any::<bool>().then(|| any_str(&mut a)),
        id: any::<bool>().then(|| any_str(&mut c)),
        retry: any::<bool>().then(|| Duration::from_millis(any())),
        ..Fields::event(any_bytes(&mut b))
    };
    for fields in [fields, Fields::comment(any_str(&mut d)), Fields::retry(Duration::from_millis(any()))] {
        match fields.parts() {
            Ok(parts) => parts.for_each(|part| _ = black_box(part)),
            Err(error) => show(error),
        }
        black_box(fields.encode(&mut tx).is_ok());
    }
}
