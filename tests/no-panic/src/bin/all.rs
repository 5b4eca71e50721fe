//! Everything.
#![no_std]
#![no_main]

use longwire_no_panic::{buf, http, log, sse, ws};

#[unsafe(no_mangle)]
extern "C" fn main() {
    buf::all();
    http::all();
    log::all();
    sse::all();
    ws::all();
}
