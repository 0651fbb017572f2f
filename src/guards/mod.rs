//! What keeps callers from making trouble worse: limiters, a circuit breaker, retries with backoff.
//! Decisions are pure, with time and chance as arguments; what waits is thin around them.
