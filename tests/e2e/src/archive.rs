//! Archives whose bytes the tests know.

/// A tar archive (POSIX ustar) of these files: names and bytes.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, bytes) in files {
        archive.extend_from_slice(&tar_header(name, bytes.len()));
        archive.extend_from_slice(bytes);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    // Two empty blocks end it.
    archive.resize(archive.len() + 1024, 0);
    archive
}

fn tar_header(name: &str, len: usize) -> [u8; 512] {
    let mut header = [0u8; 512];
    let mut field =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    field(0, name);
    field(100, "0000644\0");
    field(108, "0000000\0");
    field(116, "0000000\0");
    field(124, &format!("{:011o}\0", len));
    field(136, "00000000000\0");
    // The checksum is taken with blanks in its own place.
    field(148, "        ");
    field(156, "0");
    field(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// A gzip file (RFC 1952) of stored blocks (RFC 1951, 3.2.4): its bytes do not shrink.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 0xffff;
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let count = bytes.chunks(BLOCK).len();
    for (number, block) in bytes.chunks(BLOCK).enumerate() {
        let len = block.len() as u16;
        file.push(u8::from(number + 1 == count));
        file.extend_from_slice(&len.to_le_bytes());
        file.extend_from_slice(&(!len).to_le_bytes());
        file.extend_from_slice(block);
    }
    file.extend_from_slice(&crc32(bytes).to_le_bytes());
    file.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    file
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut table = [0u32; 256];
    for (byte, entry) in (0..).zip(&mut table) {
        *entry = (0..8).fold(byte, |crc: u32, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        });
    }
    !bytes.iter().fold(!0, |crc: u32, &byte| {
        (crc >> 8) ^ table[usize::from(crc as u8 ^ byte)]
    })
}
