//! Futures of the tokio runtime's `WebSocket`, dropped after any number of polls.

mod party;
mod stream;

use crate::choices::Choices;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use longwire::websocket::{Config, Deflate, Role, WebSocket};
use longwire_core::ws::deflate::{Agreed, Window};
use party::{Course, Party};
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;
use stream::Script;

/// A script, as choices: the configuration; then, in the order in which they come by, what each of the two ends does and
/// after how many polls it gives that up, and what its stream does each time that it is asked.
///
/// At its end each sends a last message, and when both have come the connection is closed; unless the script cuts the
/// stream, or lets one end close at any moment. Meanwhile every task is polled only
/// when it was woken, and no timer runs: a waker that is lost leaves it waiting for ever.
///
/// # Panics
/// When a message that was taken does not arrive, or one that was not does; when one is repeated, changed, or out of order;
/// when a Ping is not answered once; when anything fails or hangs, although the stream was not cut.
pub fn runtime_cancel(data: &[u8]) {
    // Nobody waits for real: when nothing is left to do, the next deadline is now.
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let done = tokio::time::timeout(Duration::from_secs(60), run(data)).await;
        assert!(done.is_ok(), "somebody waits, and nobody wakes him");
    });
}

async fn run(data: &[u8]) {
    let script: Script<'_> = RefCell::new(Choices::new(data));
    let (course, closers) = {
        let mut choices = script.borrow_mut();
        let course = [Course::Orderly, Course::Orderly, Course::Hasty, Course::Cut][choices.upto(3)];
        (course, [[true, false], [false, true], [true, true]][choices.upto(2)])
    };
    let (config, agreed) = config(&mut script.borrow_mut());
    let (a, b) = stream::pair(&script, course == Course::Cut);
    let socket = |stream, role| {
        let socket = WebSocket::from_parts(stream, role, &[], config.clone());
        match agreed {
            Some(agreed) => socket.with_deflate(agreed),
            None => socket,
        }
    };
    let client = Party::new(&script, "client", closers[0], course);
    let server = Party::new(&script, "server", closers[1], course);
    let (a, b) = (socket(a, Role::Client), socket(b, Role::Server));
    // Each has a waker of its own.
    let mut tasks = FuturesUnordered::new();
    tasks.push(client.run(a));
    tasks.push(server.run(b));
    while tasks.next().await.is_some() {}
    drop(tasks);
    client.check(&server);
    server.check(&client);
}

/// Small buffers, no heartbeat, and deadlines that are too late to help anybody.
fn config(choices: &mut Choices<'_>) -> (Arc<Config>, Option<Agreed>) {
    let mut config = Config::default();
    config.protocol.heartbeat = None;
    config.protocol.close_timeout = Duration::from_secs(3600);
    config.write_timeout = None;
    config.max_send_buffer = 150 + choices.upto(1000);
    config.max_read = 1 + choices.upto(500);
    let mut deflate = Deflate::default();
    deflate.threshold = choices.upto(200);
    config.deflate = Some(deflate);
    let window =
        |choices: &mut Choices<'_>| Window { bits: 15 - choices.byte() % 8, takeover: choices.flag() };
    let agreed = choices.option(|choices| Agreed { server: window(choices), client: window(choices) });
    (Arc::new(config), agreed)
}
