//! `coffer`: the server and the command line in one binary. All that it does is in the library.

fn main() -> std::process::ExitCode {
    coffer::run()
}
