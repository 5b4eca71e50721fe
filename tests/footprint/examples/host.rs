//! Prints the sizes of the state on this machine.

fn main() {
    for (name, bytes) in longwire_footprint::STATE {
        println!("{name}\t{bytes}");
    }
}
