//! The certlet command.

fn main() {}
