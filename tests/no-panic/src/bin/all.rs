//! Everything.
#![no_std]
#![no_main]

use longwire_no_panic::{buf, http, log, session, sse, ws};

#[unsafe(no_mangle)]
extern "C" fn main() {
    buf::all();
    http::all();
    log::all();
    session::all();
    sse::all();
    ws::all();
}
