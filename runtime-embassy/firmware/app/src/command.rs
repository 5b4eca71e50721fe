//! What the firmware is told to do.

use core::convert::Infallible;

use embassy_sync::blocking_mutex::raw::RawMutex;
use embassy_time::Timer;
use longwire_embassy::{Arrival, Commands};

use crate::Shared;

/// How long the light is on, and off.
const BLINK_MS: u64 = 100;
/// The most often that one order may make it blink.
const MAX_BLINKS: u32 = 50;

/// Obeys, for ever. What makes no sense is passed over.
pub(crate) async fn obey<M: RawMutex, const N: usize, const BYTES: usize>(
    commands: &Commands<M, N, BYTES>,
    shared: &Shared,
    mut light: impl FnMut(bool),
) -> Infallible {
    loop {
        let Arrival::Command(command) = commands.next().await else { continue };
        let (Some((_, what)), Ok(number)) = (command.topic().rsplit_once('/'), command.decode::<u32>())
        else {
            continue;
        };
        match what {
            "interval" if number > 0 => {
                shared.interval.set(number);
                shared.changed.signal(());
            }
            "blink" => blink(&mut light, number.min(MAX_BLINKS)).await,
            _ => {}
        }
    }
}

async fn blink(light: &mut impl FnMut(bool), times: u32) {
    for _ in 0..times {
        light(true);
        Timer::after_millis(BLINK_MS).await;
        light(false);
        Timer::after_millis(BLINK_MS).await;
    }
}
