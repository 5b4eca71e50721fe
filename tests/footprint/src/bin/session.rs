//! The device's part of the session protocol: publications out, acknowledgements in.
#![no_std]
#![no_main]

use longwire_core::session::{ClientMessage, Data, ServerMessage, SliceSink, cbor};
use longwire_footprint::{any, read, write};

#[unsafe(no_mangle)]
extern "C" fn main() {
    let mut bytes = [0; 256];
    loop {
        let n = any();
        let data = Data::Cbor(&[0xf6]);
        let message = ClientMessage::Pub { n: Some(n), topic: "device/7/uptime".into(), key: None, data };
        let mut sink = SliceSink::new(&mut bytes);
        if cbor::encode_client(&message, &mut sink).is_ok() {
            write(sink.written());
        }
        let len = read(&mut bytes);
        match cbor::decode_server(bytes.get(..len).unwrap_or_default()) {
            Ok(ServerMessage::Ack { n: acknowledged, .. }) if acknowledged == n => {}
            _ => return,
        }
    }
}
