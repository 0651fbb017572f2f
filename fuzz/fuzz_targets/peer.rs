#![no_main]

duramen_fuzz::target!("peer");
