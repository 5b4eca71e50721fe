//! How much memory the parts of a device take, on a 64-bit host with every feature: on a microcontroller, where a pointer has
//! four bytes, it is less. `tests/sizes` measures that.
#![expect(clippy::unwrap_used, reason = "a test's helper fails the test")]

mod common;

use common::{Memory, Numbers};
use embassy_sync::blocking_mutex::raw::CriticalSectionRawMutex as Mutex;
use longwire_core::log::Since;
use longwire_embassy::{
    Command, Commands, Connect, Gateway, Outbox, Overflow, Policy, TlsLink, Uplink, UplinkConfig, WebSocket,
};

static CONFIG: UplinkConfig = UplinkConfig::new();

struct Nobody;

impl Connect for Nobody {
    type Link<'a> = Memory;
    type Error = ();

    async fn connect(&mut self) -> Result<Memory, ()> {
        Err(())
    }
}

fn of<T>(_: &T) -> usize {
    size_of::<T>()
}

#[test]
fn state_beside_the_buffers() {
    static OUTBOX: Outbox<Mutex, 1024> = Outbox::new(Policy::DropOldest);
    static COMMANDS: Commands<Mutex, 8, 64> = Commands::new(Overflow::Conflate);
    let (mut rx, mut tx, mut post_rx, mut post_tx) = ([0; 512], [0; 512], [0; 512], [0; 512]);
    let mut uplink = Uplink::new(Nobody, Gateway::new("gateway"), &CONFIG, Numbers(1), &mut rx, &mut tx)
        .with_posts(Nobody, &mut post_rx, &mut post_tx)
        .with_commands(&COMMANDS, &["do/*"], Since::Now);
    let uplink_size = of(&uplink);
    let running = uplink.run(&OUTBOX, |_| {});
    // Name, bytes, and the most that is stated.
    let sizes = [
        ("WebSocket, with its link", size_of::<WebSocket<'static, &mut Memory, &mut Numbers>>(), 208),
        ("Outbox, beside its readings", size_of_val(&OUTBOX) - 1024, 512),
        ("Commands, beside its commands", size_of_val(&COMMANDS) - 8 * size_of::<Command<64>>(), 144),
        ("Command, beside its bytes", size_of::<Command<64>>() - 64, 16),
        ("TlsLink, with its link", size_of::<TlsLink<'static, &mut Memory>>(), 1400),
        ("Uplink", uplink_size, 696),
        ("Uplink::run, over every transport", of(&running), 3600),
    ];
    for (name, bytes, _) in sizes {
        println!("{bytes:6} {name}");
    }
    for (name, bytes, most) in sizes {
        assert!(bytes <= most, "{name}: {bytes} bytes, at most {most} are stated");
    }
}
