//! The binary `telltale`: parses the command line and hands it to the library. Nothing else happens here.

use std::process::ExitCode;

fn main() -> ExitCode {
    telltale_service::cli::main()
}
