//! A compiled kernel's registers, stack, shared memory and instruction counts, read from its cubin
//! without the tools of the CUDA toolkit.
//!
//! A cubin is an ELF file. Per kernel there is `.text.NAME` (16-byte instructions, the opcode in
//! the low 12 bits), `.nv.shared.NAME` (static shared memory) and, in `.nv.info`, records of
//! {format, attribute, size, payload}; those of 8 bytes name a kernel by its symbol and give a
//! number. Attributes: 0x2f registers, 0x11 frame size. Opcodes were read off `nvdisasm -hex` for
//! sm_80 to sm_120: 0x23c HMMA, 0x983 LDL, 0x387 and 0x987 STL.

/// One kernel of a cubin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// The function's name.
    pub name: String,
    /// Registers of a thread.
    pub registers: usize,
    /// Stack of a thread in bytes: spills and indexed arrays.
    pub stack: usize,
    /// Bytes of static shared memory.
    pub shared: usize,
    /// Instructions.
    pub instructions: usize,
    /// Tensor-core instructions (HMMA) among them.
    pub tensor: usize,
    /// Accesses to local memory among them.
    pub local: usize,
}

const REGISTERS: u8 = 0x2f;
const FRAME: u8 = 0x11;
/// The format of records whose payload has the length in their size field.
const SIZED: u8 = 0x04;

/// A section: its name, its bytes in the file, its size in memory.
struct Section<'a> {
    name: &'a str,
    bytes: &'a [u8],
    size: usize,
}

/// A little-endian number of `width` bytes.
fn number(bytes: &[u8], offset: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(offset..offset.checked_add(width)?)?;
    Some(
        bytes
            .iter()
            .rev()
            .fold(0, |n, &byte| n << 8 | u64::from(byte)),
    )
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    number(bytes, offset, 4).map(|n| n as u32)
}

/// The zero-terminated string at an offset.
fn text(bytes: &[u8], offset: usize) -> Option<&str> {
    let bytes = bytes.get(offset..)?;
    let end = bytes.iter().position(|&b| b == 0)?;
    std::str::from_utf8(&bytes[..end]).ok()
}

/// The kernels of a cubin, in the order of its sections.
///
/// # Errors
///
/// It is not a 64-bit ELF file, or it is cut short.
pub fn kernels(cubin: &[u8]) -> Result<Vec<Compiled>, String> {
    read(cubin).ok_or_else(|| "not a cubin: no complete 64-bit ELF file".into())
}

fn read(cubin: &[u8]) -> Option<Vec<Compiled>> {
    if !cubin.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let sections = sections(cubin)?;
    let find = |name: &str| sections.iter().find(|s| s.name == name);
    let mut kernels: Vec<Compiled> = sections
        .iter()
        .filter_map(|section| {
            let name = section.name.strip_prefix(".text.")?;
            let opcodes = section.bytes.chunks_exact(16).map(|i| {
                let low = u16::from_le_bytes([i[0], i[1]]);
                low & 0xfff
            });
            let count = |of: &[u16]| opcodes.clone().filter(|o| of.contains(o)).count();
            Some(Compiled {
                name: name.into(),
                instructions: section.bytes.len() / 16,
                tensor: count(&[0x23c]),
                local: count(&[0x983, 0x387, 0x987]),
                shared: find(&format!(".nv.shared.{name}")).map_or(0, |s| s.size),
                ..Compiled::default()
            })
        })
        .collect();

    let (symbols, names) = (find(".symtab")?.bytes, find(".strtab")?.bytes);
    let info = find(".nv.info")?.bytes;
    let mut offset = 0;
    while offset + 4 <= info.len() {
        let (format, attribute) = (info[offset], info[offset + 1]);
        let size = usize::from(u16::from_le_bytes([info[offset + 2], info[offset + 3]]));
        if format == SIZED && size == 8 && matches!(attribute, REGISTERS | FRAME) {
            let symbol = word(info, offset + 4)? as usize * 24;
            let value = word(info, offset + 8)? as usize;
            let name = text(names, word(symbols, symbol)? as usize)?;
            if let Some(kernel) = kernels.iter_mut().find(|k| k.name == name) {
                match attribute {
                    REGISTERS => kernel.registers = value,
                    _ => kernel.stack = value,
                }
            }
        }
        offset += 4 + if format == SIZED { size } else { 0 };
    }
    Some(kernels)
}

fn sections(elf: &[u8]) -> Option<Vec<Section<'_>>> {
    let table = number(elf, 0x28, 8)? as usize;
    let entry = number(elf, 0x3a, 2)? as usize;
    let count = number(elf, 0x3c, 2)? as usize;
    let names_at = table.checked_add(entry * number(elf, 0x3e, 2)? as usize)?;
    let names = number(elf, names_at + 0x18, 8)? as usize;
    (0..count)
        .map(|i| {
            let header = table.checked_add(entry * i)?;
            let offset = number(elf, header + 0x18, 8)? as usize;
            let size = number(elf, header + 0x20, 8)? as usize;
            /// SHT_NOBITS: a section without bytes in the file.
            const NOBITS: u32 = 8;
            let bytes = match word(elf, header + 4)? {
                NOBITS => &[][..],
                _ => elf.get(offset..offset.checked_add(size)?)?,
            };
            Some(Section {
                name: text(elf, names.checked_add(word(elf, header)? as usize)?)?,
                bytes,
                size,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_other_than_cubins_are_refused() {
        assert!(kernels(b"").is_err());
        assert!(kernels(b"//\n.version 8.0\n").is_err());
        let mut elf = vec![0u8; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[0x28] = 200;
        elf[0x3a] = 64;
        elf[0x3c] = 3;
        assert!(kernels(&elf).is_err());
    }
}
