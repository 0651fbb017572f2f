//! What keeps callers from making trouble worse: limiters, a circuit breaker, retries with backoff.
//! Decisions are pure, with time and chance as arguments; what waits is thin around them.
//!
//! Written here and not taken from a crate: each is a page, and what they promise (never more than
//! so many in any window, one call at a time while half open, time that is passed in) is more
//! than the crates at hand do.

mod breaker;
mod chance;
mod class;
mod guarded;
mod limiter;
mod retry;
mod sliding_window;
pub mod tls;
mod token_bucket;

pub use breaker::{
    Admission, Breaker, BreakerOpen, BreakerOptions, BreakerState, CircuitBreaker, Permit, Turn,
};
pub use chance::chance_of_machine;
pub use class::{Classify, ErrorClass, Marked, permanent, retryable};
pub use guarded::{Guarded, GuardedError};
pub use limiter::Limiter;
pub use retry::{Outcome, RetryPolicy, retry};
pub use sliding_window::SlidingWindow;
pub use token_bucket::{TokenBucket, TokenBucketOptions};
