//! Properties that hold for any bytes as a seccomp profile, and as a file of compiled filters.

use ob_confine::seccomp::Filters;
use ob_document::one_line;

/// Compiles the bytes as a profile, with no capability and with all of them; parses them as
/// compiled filters.
pub fn holds(bytes: &[u8]) {
    if let Ok(filters) = Filters::from_bytes(bytes) {
        assert_eq!(filters.to_bytes(), bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    for kept in [0, u64::MAX] {
        match Filters::of_profile(text, kept) {
            Ok(filters) => {
                let kept = filters.to_bytes();
                assert_eq!(Filters::from_bytes(&kept).unwrap(), filters);
                let cut = kept.split_last().map(|(_, cut)| Filters::from_bytes(cut));
                assert!(cut.is_none_or(|cut| cut.is_err()));
            }
            Err(error) => assert!(!one_line(&error).contains('\n')),
        }
    }
}
