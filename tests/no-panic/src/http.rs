//! HTTP/1.1: heads, the upgrade in both roles, what is written.

use core::hint::black_box;

use longwire_core::buf::{RxBuf, RxCursor, TxBuf, TxCursor};
use longwire_core::http::body::{BodyReader, BodyStep, Framing};
use longwire_core::http::head::{HeadReader, Limits, Step};
use longwire_core::http::upgrade::{self, ClientUpgrade, Offer};
use longwire_core::http::view::{Headers, Request, Response};
use longwire_core::http::{extension, query, write};

use crate::{Unknown, any, any_bytes, any_str, forget, show};

/// Calls everything in `http`.
pub fn all() {
    requests();
    client_upgrade();
    bodies();
    queries();
    writers();
}

fn limits() -> Limits {
    Limits { max_head: any(), max_headers: any(), max_name: any(), max_value: any(), max_target: any() }
}

fn requests() {
    let (mut bytes, mut at) = ([0; 1024], RxCursor::default());
    let mut reader = HeadReader::default();
    while any() {
        let mut rx = RxBuf::new(any_bytes(&mut bytes), forget(&mut at));
        match forget(&mut reader).poll_request(&mut rx, &limits()) {
            Ok(Step::Head(head)) => {
                black_box(head.len());
                request(&head.view(rx.reborrow()));
                head.release(&mut rx);
            }
            Ok(_) => {}
            Err(error) => {
                black_box(error.status());
                show(error);
            }
        }
    }
}

fn request(request: &Request<'_>) {
    let mut name = [0; 32];
    black_box((request.method(), request.target(), request.version(), request.path(), request.query()));
    black_box((request.authority(), request.keeps_alive(), request.header(any_str(&mut name))));
    black_box(Framing::of_request(request));
    headers(request.headers());
    let (mut out, mut at) = ([0; 512], TxCursor::default());
    let mut tx = TxBuf::new(any_bytes(&mut out), forget(&mut at));
    match upgrade::accept(request) {
        Ok(upgrade) => {
            black_box((upgrade.request(), upgrade.key(), upgrade::accept_key(upgrade.key())));
            upgrade.extensions().for_each(look_at_extension);
            let chosen = upgrade.subprotocols().nth(any());
            let (mut a, mut b, mut c) = ([0; 32], [0; 32], [0; 32]);
            let agreed = any::<bool>().then(|| any_str(&mut a));
            let fields = [(any_str(&mut b), any_str(&mut c))];
            black_box(upgrade.write_response(&mut tx, chosen, agreed, &fields).is_ok());
        }
        Err(error) => {
            show(error);
            black_box((error.status(), error.fields(), error.write(&mut tx).is_ok()));
        }
    }
}

fn look_at_extension(extension: extension::Extension<'_>) {
    black_box(extension.name());
    for (name, value) in extension.params() {
        black_box(name);
        if let Some(value) = value {
            let mut text = [0; 16];
            black_box((value.is(any_str(&mut text)), value.number(), value.chars().count()));
        }
    }
}

fn headers(headers: Headers<'_>) {
    headers.iter().for_each(|field| _ = black_box(field));
    let mut name = [0; 32];
    let mut token = [0; 32];
    let name = any_str(&mut name);
    headers.get_all(name).for_each(|value| _ = black_box(value));
    headers.list(name).for_each(|value| _ = black_box(value));
    black_box((headers.get(name), headers.get_str(name), headers.has_token(name, any_str(&mut token))));
    black_box((headers.content_length(), headers.is_chunked()));
    if let Err(error) = headers.get_only(name) {
        show(error);
    }
}

/// The client's side of the upgrade, as a device uses it.
pub fn client_upgrade() {
    let upgrade = if any() { ClientUpgrade::new(&mut Unknown) } else { ClientUpgrade::with_nonce(any()) };
    let (mut a, mut b, mut c, mut d, mut e, mut f, mut g) =
        ([0; 64], [0; 64], [0; 32], [0; 32], [0; 32], [0; 32], [0; 32]);
    let offer = Offer {
        origin: any::<bool>().then(|| any_str(&mut c)),
        subprotocols: &[any_str(&mut d)],
        extensions: any::<bool>().then(|| any_str(&mut e)),
        fields: &[(any_str(&mut f), any_str(&mut g))],
        ..Offer::new(any_str(&mut a), any_str(&mut b))
    };
    let (mut out, mut out_at) = ([0; 512], TxCursor::default());
    let mut tx = TxBuf::new(any_bytes(&mut out), forget(&mut out_at));
    if let Err(error) = upgrade.write_request(&mut tx, &offer) {
        show(error);
    }
    let (mut bytes, mut at) = ([0; 1024], RxCursor::default());
    let mut reader = HeadReader::default();
    while any() {
        let mut rx = RxBuf::new(any_bytes(&mut bytes), forget(&mut at));
        match forget(&mut reader).poll_response(&mut rx, &limits()) {
            Ok(Step::Head(head)) => {
                black_box(head.len());
                response(&upgrade, &offer, &head.view(rx.reborrow()));
                head.release(&mut rx);
            }
            Ok(_) => {}
            Err(error) => show(error),
        }
    }
}

fn bodies() {
    let framing = match any::<u8>() {
        0 => Framing::None,
        1 => Framing::Length(any()),
        2 => Framing::Chunked,
        _ => Framing::UntilClose,
    };
    let (mut bytes, mut at) = ([0; 512], RxCursor::default());
    let mut reader = match BodyReader::new(framing, any()) {
        Ok(reader) => reader,
        Err(error) => return show(error),
    };
    while any() {
        let reader = forget(&mut reader);
        let mut rx = RxBuf::new(any_bytes(&mut bytes), forget(&mut at));
        match reader.poll(&mut rx) {
            Ok(BodyStep::Data) => {
                black_box(reader.piece(rx.reborrow()));
                if any() {
                    reader.keep(&mut rx);
                }
            }
            Ok(step) => _ = black_box(step),
            Err(error) => {
                black_box(error.status());
                show(error);
            }
        }
        if let Err(error) = reader.handle_eof() {
            show(error);
        }
    }
}

fn queries() {
    let (mut a, mut b) = ([0; 64], [0; 16]);
    let (text, name) = (any_str(&mut a), any_str(&mut b));
    let found = query::pairs(text).flat_map(|(name, value)| [name, value]);
    for encoded in found.chain(query::value(text, name)).chain(query::segments(text)) {
        black_box((encoded.raw(), encoded.is(name), encoded.chars().count()));
        if let Err(error) = encoded.decode_into(&mut heapless::String::<32>::new()) {
            show(error);
        }
    }
}

fn response(upgrade: &ClientUpgrade, offer: &Offer<'_>, response: &Response<'_>) {
    black_box((response.status(), response.reason(), response.version(), response.keeps_alive()));
    black_box((response.retry_after(), response.header("a")));
    let mut method = [0; 16];
    black_box(Framing::of_response(response, any_str(&mut method)));
    headers(response.headers());
    match upgrade.check(offer, response) {
        Ok(agreed) => {
            black_box(agreed.subprotocol());
            agreed.extensions().for_each(look_at_extension);
        }
        Err(error) => show(error),
    }
}

fn writers() {
    let (mut a, mut b, mut c, mut d) = ([0; 64], [0; 64], [0; 64], [0; 64]);
    let (mut out, mut at) = ([0; 512], TxCursor::default());
    let mut tx = TxBuf::new(any_bytes(&mut out), forget(&mut at));
    let fields = [(any_str(&mut a), any_str(&mut b))];
    let (c, d) = (any_str(&mut c), any_str(&mut d));
    for result in [
        write::request(&mut tx, c, d, &fields),
        write::response(&mut tx, any(), &fields),
        write::refusal(&mut tx, any(), &fields, c),
        write::chunk(&mut tx, &[c.as_bytes(), d.as_bytes()]),
    ] {
        if let Err(error) = result {
            show(error);
        }
    }
    black_box(write::reason(any()));
    extension::parse(c.as_bytes()).flatten().for_each(look_at_extension);
}
