//! What the fuzz target calls: a ZooKeeper server that says anything.

/// A session, a node, and what comes while a change is waited for.
pub fn zookeeper(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(super::zookeeper::fuzz(bytes.to_vec()));
}

#[cfg(test)]
mod tests {
    #[test]
    fn host_what_was_fuzzed_is_read_without_fault() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/zookeeper");
        let files: Vec<_> = std::fs::read_dir(corpus).expect("a corpus").flatten().collect();
        assert!(!files.is_empty());
        files.iter().for_each(|file| super::zookeeper(&std::fs::read(file.path()).expect("readable")));
    }
}
