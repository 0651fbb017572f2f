//! Promises of the simulated disk that a real one does not make.
