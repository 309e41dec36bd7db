//! The main job, on real parts: the demo's claims as assertions, and what people see when something is wrong.
//! Needs the images (`e2e/images/build`); `make test` sees to that and to the rest.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod failures;
mod logins;
mod scene;
mod secrecy;
mod story;
