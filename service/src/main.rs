//! The binary `telltale`: parses the command line and hands it to the library. Nothing else happens here, but that ONNX Runtime is
//! kept from reporting to its vendor.

use std::process::ExitCode;

fn main() -> ExitCode {
    silence_onnx_runtime();
    telltale_service::cli::main()
}

/// The official builds of ONNX Runtime look up their vendor's server and keep a device id on disk as soon as they start, unless this
/// stands in the environment; to switch it off through the API comes too late (<https://github.com/microsoft/onnxruntime/pull/27379>).
#[expect(unsafe_code, reason = "no other thread runs yet; tested end to end by `onnx_runtime_reports_to_nobody`")]
fn silence_onnx_runtime() {
    // SAFETY: the first thing that the only thread does.
    unsafe { std::env::set_var("ORT_DISABLE_TELEMETRY", "1") };
}
