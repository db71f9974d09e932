use super::*;

#[test]
fn lock_survives_removal_of_its_directory() {
    let directory = std::env::temp_dir().join(format!("ob-state-{}", std::process::id()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let state = StateDir::below(&directory, "mta");
                for _ in 0..3000 {
                    if let Some(lock) = state.lock().unwrap() {
                        state.remove().unwrap();
                        drop(lock);
                    }
                }
            });
        }
    });
    // A file at the path of the directory must not cause an endless loop.
    let state = StateDir::below(&directory, "mtb");
    std::fs::write(directory.join("mtb"), "").unwrap();
    assert!(state.lock().is_err());
    std::fs::remove_dir_all(&directory).unwrap();
}
