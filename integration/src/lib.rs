//! Fixture of the integration tests.
