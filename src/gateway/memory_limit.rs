//! Compares the memory limit of the process (Linux control groups) with its configuration.

use std::path::{Path, PathBuf};

/// Memory used in addition to `server.max_buffered`: the process, its caches and its connections.
const BASE_BYTES: u64 = 100_000_000;

/// Warns if the limit is below what `server.max_buffered` needs: the system would kill the process before it sheds load.
pub(super) fn warn_if_low(max_buffered: usize) {
    let needed = BASE_BYTES.saturating_add(max_buffered as u64);
    let limit = memory_limit(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup"));
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        tracing::warn!(
            memory.limit = limit,
            memory.needed = needed,
            "the memory limit is below 100 MB + server.max_buffered: raise it, or lower server.max_buffered"
        );
    }
}

/// The lowest limit in bytes of the process's groups, given the list of groups and their mount point; `None` where there is no limit or it
/// cannot be read.
fn memory_limit(groups: &Path, mounted: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string(groups).ok()?;
    groups
        .lines()
        .filter_map(|line| {
            // `0::/path` (version 2), `9:memory:/path` (version 1).
            let (number, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            if number == "0" {
                Some((mounted.to_owned(), "memory.max", path))
            } else if controllers.split(',').any(|name| name == "memory") {
                Some((mounted.join("memory"), "memory.limit_in_bytes", path))
            } else {
                None
            }
        })
        .flat_map(|(root, file, path)| {
            // The limits of parent groups apply too. In a container the path may be the host's, of which only the root is mounted.
            let ancestors = Path::new(path).ancestors().map(PathBuf::from);
            ancestors.filter_map(move |group| {
                let group = group.strip_prefix("/").ok()?;
                let text = std::fs::read_to_string(root.join(group).join(file)).ok()?;
                // "max" means no limit.
                text.trim().parse().ok()
            })
        })
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system with these files; the first one lists the groups.
    fn limit_of(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        std::fs::write(&list, groups).unwrap();
        for (name, text) in files {
            let file = folder.path().join("mounted").join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        memory_limit(&list, &folder.path().join("mounted"))
    }

    #[test]
    fn the_lowest_limit_of_version_2_counts() {
        let files = [
            ("memory.max", "max\n"),
            ("a/memory.max", "300\n"),
            ("a/b/memory.max", "max\n"),
        ];
        assert_eq!(limit_of("0::/a/b\n", &files), Some(300));
        assert_eq!(limit_of("0::/a\n", &files), Some(300));
        assert_eq!(limit_of("0::/\n", &files), None);
        // A container's own root.
        assert_eq!(limit_of("0::/\n", &[("memory.max", "200\n")]), Some(200));
        assert_eq!(
            limit_of("0::/../elsewhere\n", &[("memory.max", "200\n")]),
            Some(200)
        );
    }

    #[test]
    fn the_lowest_limit_of_version_1_counts() {
        let groups = "12:cpu,cpuacct:/x\n9:memory:/docker/1\n0::/\n";
        let inside = [("memory/memory.limit_in_bytes", "200\n")];
        assert_eq!(limit_of(groups, &inside), Some(200));
        let outside = [
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory/docker/1/memory.limit_in_bytes", "300\n"),
        ];
        assert_eq!(limit_of(groups, &outside), Some(300));
    }

    #[test]
    fn nothing_told_is_no_limit() {
        assert_eq!(limit_of("", &[]), None);
        assert_eq!(
            limit_of("nonsense\n0::/\n", &[("memory.max", "nonsense")]),
            None
        );
        let nowhere = Path::new("/nowhere");
        assert_eq!(memory_limit(nowhere, nowhere), None);
    }
}
