#![no_main]

duramen_fuzz::target!("store");
