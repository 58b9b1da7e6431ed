//! The ELF kernel out of a bzImage: the payload is found by the magic number of its compression.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

struct Format {
    magic: &'static [u8],
    program: &'static str,
    arguments: &'static [&'static str],
}

const FORMATS: &[Format] = &[
    Format { magic: b"\x28\xb5\x2f\xfd", program: "zstd", arguments: &["-dcq"] },
    Format { magic: b"\xfd7zXZ\x00", program: "xz", arguments: &["-dcq", "--single-stream"] },
    Format { magic: b"\x02!L\x18", program: "lz4", arguments: &["-dcq"] },
    Format { magic: b"\x1f\x8b\x08", program: "gzip", arguments: &["-dcq"] },
];

/// Writes the kernel inside `image` to `vmlinux`.
pub fn extract(image: &Path, vmlinux: &Path) -> Result<()> {
    let bytes = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    for format in FORMATS {
        for at in places(&bytes, format.magic) {
            let kernel = decompress(format, &bytes[at..])?;
            if kernel.starts_with(b"\x7fELF") {
                return fs::write(vmlinux, kernel)
                    .with_context(|| format!("cannot write {}", vmlinux.display()));
            }
        }
    }
    bail!("{} holds no kernel compressed with zstd, xz, lz4 or gzip", image.display())
}

fn places<'a>(bytes: &'a [u8], magic: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    bytes.windows(magic.len()).enumerate().filter(move |(_, at)| *at == magic).map(|(i, _)| i)
}

/// What the program makes of it, whatever its exit code: the rest of the image follows the payload
/// and is an error to all of them; so is every chance occurrence of a magic number.
fn decompress(format: &Format, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new(format.program)
        .args(format.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", format.program))?;
    let mut input = child.stdin.take().context("the child has no stdin")?;
    let output = thread::scope(|scope| {
        // It may stop reading at the end of the payload: a broken pipe is no failure here.
        scope.spawn(move || input.write_all(bytes).ok());
        child.wait_with_output()
    })?;
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magic_numbers_are_found_anywhere() {
        assert_eq!(places(b"abcabc", b"bc").collect::<Vec<_>>(), [1, 4]);
        assert_eq!(places(b"a", b"bc").count(), 0);
    }

    #[test]
    fn a_kernel_is_taken_out_of_an_image() {
        let folder = std::env::temp_dir().join(format!("xtask-image-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let packed = decompressible(b"\x7fELF and the rest");
        let image = [b"setup\x1f\x8b\x08junk".as_slice(), &packed, b"trailer"].concat();
        fs::write(folder.join("vmlinuz"), image).unwrap();
        extract(&folder.join("vmlinuz"), &folder.join("vmlinux")).unwrap();
        assert_eq!(fs::read(folder.join("vmlinux")).unwrap(), b"\x7fELF and the rest");
        fs::write(folder.join("vmlinuz"), b"nothing").unwrap();
        assert!(extract(&folder.join("vmlinuz"), &folder.join("vmlinux")).is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    fn decompressible(bytes: &[u8]) -> Vec<u8> {
        let format = Format { magic: b"", program: "gzip", arguments: &["-c"] };
        decompress(&format, bytes).unwrap()
    }
}
