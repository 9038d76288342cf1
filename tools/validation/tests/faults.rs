//! The program without a device: what `cargo xtask validate` asks for by a wrong name must not pass for a fault that went unnoticed.

use std::process::Command;

#[test]
fn an_unknown_fault_is_named() {
    for fault in ["nothing", ""] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_planted")).arg(fault).output().expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(&format!("`{fault}` is no fault")), "{said}");
    }
}
