//! Decode plans over the formats of a real kernel, and raw records made by hand.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use kmemlab_trace::tracepoint;

#[derive(Debug, Default)]
struct Table {
    names: Vec<Vec<u8>>,
    sites: BTreeMap<u64, u32>,
}

impl Numbers for Table {
    fn name(&mut self, name: &[u8]) -> Option<u16> {
        let known = self.names.iter().position(|known| known == name);
        let index = known.unwrap_or_else(|| {
            self.names.push(name.to_vec());
            self.names.len() - 1
        });
        u16::try_from(index).ok()
    }

    fn call_site(&mut self, address: u64) -> Option<u32> {
        let next = u32::try_from(self.sites.len()).ok()?;
        Some(*self.sites.entry(address).or_insert(next))
    }
}

fn fixture(tracepoint: &Tracepoint) -> Option<Format> {
    let events = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels/6.18/events");
    let path = events.join(tracepoint.system()).join(tracepoint.event()).join("format");
    std::fs::read_to_string(path).ok().map(|text| Format::parse(&text).unwrap())
}

/// Fields of one tracepoint by name, as the kernel would write them.
struct Raw<'a> {
    format: &'a Format,
    bytes: Vec<u8>,
}

impl<'a> Raw<'a> {
    fn new(format: &'a Format) -> Self {
        let length = format.fields.iter().map(|field| field.offset + field.size).max().unwrap();
        let mut raw = Self { format, bytes: vec![0; length] };
        raw.put("common_type", format.id);
        raw
    }

    fn put(&mut self, name: &str, value: u64) -> &mut Self {
        let field = self.format.field(name).unwrap();
        let bytes = value.to_ne_bytes();
        self.bytes[field.offset..field.offset + field.size].copy_from_slice(&bytes[..field.size]);
        self
    }

    fn text(&mut self, name: &str, text: &[u8]) -> &mut Self {
        let at = self.bytes.len() as u64 | (text.len() as u64) << 16;
        self.put(name, at);
        self.bytes.extend_from_slice(text);
        self
    }
}

fn layout_of(kind: Kind) -> (Layout, Format) {
    let tracepoint = tracepoint::of(kind).unwrap();
    let format = fixture(tracepoint).unwrap();
    let mut layout = Layout::default();
    layout.add(tracepoint, &format, "6.18").unwrap();
    (layout, format)
}

fn decode(layout: &Layout, raw: &[u8], table: &mut Table) -> Option<Event> {
    layout.decode(raw, Nanos(99), Cpu(1), table)
}

#[test]
fn every_tracepoint_of_a_real_kernel_has_a_plan_and_decodes() {
    let mut layout = Layout::default();
    let mut table = Table::default();
    let mut found = 0;
    for tracepoint in tracepoint::ALL {
        let Some(format) = fixture(tracepoint) else { continue };
        let id = layout.add(tracepoint, &format, "6.18").unwrap();
        assert_eq!(u64::from(id), format.id);
        let event = decode(&layout, &Raw::new(&format).bytes, &mut table).unwrap();
        assert_eq!(event.kind, tracepoint.kind);
        for used in tracepoint.fields {
            let is_there = format.field(used.field).is_some();
            assert_eq!(event.has(used.column), is_there, "{} {}", format.name, used.field);
        }
        found += 1;
    }
    assert!(found > 30, "{found} formats");
}

#[test]
fn a_page_allocation() {
    let (mut layout, format) = layout_of(Kind::PageAlloc);
    layout.set_recorder(vec![41, 42]);
    let mut raw = Raw::new(&format);
    raw.put("common_pid", 42).put("common_flags", 0x18).put("common_preempt_count", 0x23);
    raw.put("pfn", 0x12_3456).put("order", 9).put("gfp_flags", 0x5_0014_0cca).put("migratetype", 1);
    let event = decode(&layout, &raw.bytes, &mut Table::default()).unwrap();
    assert_eq!((event.time, event.cpu, event.pid), (Nanos(99), Cpu(1), Pid(42)));
    assert_eq!(event.context.0, Context::HARDIRQ | Context::SOFTIRQ | Context::RECORDER);
    assert_eq!(event.preempt_depth, 3);
    assert_eq!((event.pfn_or_address, event.order, event.migrate), (0x12_3456, 9, 1));
    assert_eq!(event.gfp, 0x0014_0cca, "no more than 32 bits");
    raw.put("pfn", u64::MAX).put("migratetype", u64::MAX).put("common_pid", 7);
    let failed = decode(&layout, &raw.bytes, &mut Table::default()).unwrap();
    assert_eq!((failed.pfn(), failed.migrate()), (None, None));
    assert!(failed.has(Column::Order) && !failed.context.is_recorder());
}

#[test]
fn a_cache_allocation_names_its_cache_and_call_site() {
    let (layout, format) = layout_of(Kind::CacheAlloc);
    let mut table = Table::default();
    let mut raw = Raw::new(&format);
    raw.put("call_site", 0xffff_ffff_8112_3456).put("ptr", 0xffff_8881_0000_0000);
    raw.put("bytes_req", 192).put("bytes_alloc", 256).put("node", u64::MAX).put("accounted", 1);
    raw.text("name", b"dentry\0");
    for _ in 0..2 {
        let event = decode(&layout, &raw.bytes, &mut table).unwrap();
        assert_eq!((event.name, event.stack), (0, 0));
        assert_eq!((event.bytes_requested, event.bytes_allocated), (192, 256));
        assert_eq!((event.node, event.flag()), (-1, Some(true)));
    }
    assert_eq!(table.names, [b"dentry"]);
    assert_eq!(table.sites.len(), 1);
}

#[test]
fn a_record_cut_anywhere_is_nothing() {
    let (layout, format) = layout_of(Kind::CacheAlloc);
    let mut raw = Raw::new(&format);
    raw.text("name", b"kmalloc-64\0");
    let last = format.fields.iter().map(|field| field.offset + field.size).max().unwrap();
    for end in 0..raw.bytes.len() {
        assert_eq!(decode(&layout, &raw.bytes[..end], &mut Table::default()), None, "{end} {last}");
    }
    assert!(decode(&layout, &raw.bytes, &mut Table::default()).is_some());
    raw.put("common_type", 60_000);
    assert_eq!(decode(&layout, &raw.bytes, &mut Table::default()), None);
}

#[test]
fn a_missing_field_is_told_with_tracepoint_and_release() {
    let tracepoint = tracepoint::of(Kind::CacheAlloc).unwrap();
    let whole = fixture(tracepoint).unwrap();
    for used in tracepoint.fields {
        let mut format = whole.clone();
        format.fields.retain(|field| field.name != used.field);
        let added = Layout::default().add(tracepoint, &format, "6.99-test");
        match used.need {
            Need::Optional => assert!(added.is_ok(), "{}", used.field),
            Need::Required => {
                let text = added.unwrap_err().to_string();
                for part in ["kmem:kmem_cache_alloc", used.field, "6.99-test"] {
                    assert!(text.contains(part), "{text}");
                }
            }
        }
    }
    let mut format = whole;
    for field in &mut format.fields {
        if field.name == "ptr" {
            field.size = 16;
        }
    }
    assert!(Layout::default().add(tracepoint, &format, "6.99-test").is_err());
}

#[test]
fn names_in_the_record_itself_and_relative_ones() {
    let text = "name: x\nID: 7\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
        \tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n\
        \tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\
        \tfield:int node_id;\toffset:8;\tsize:4;\tsigned:1;\n\
        \tfield:char name[8];\toffset:12;\tsize:8;\tsigned:0;\n\
        \tfield:__rel_loc char[] upper_name;\toffset:20;\tsize:4;\tsigned:0;\n\
        \tfield:long lowmem_reserve;\toffset:24;\tsize:8;\tsigned:1;\n";
    let format = Format::parse(text).unwrap();
    let tracepoint = tracepoint::of(Kind::LowmemReserve).unwrap();
    let mut layout = Layout::default();
    layout.add(tracepoint, &format, "6.99-test").unwrap();
    let mut raw = Raw::new(&format);
    raw.put("lowmem_reserve", (-5i64).cast_unsigned());
    raw.bytes[12..18].copy_from_slice(b"Normal");
    // 32 is where the text is put, 24 the end of the field that tells of it.
    raw.put("upper_name", 8 | 8 << 16).bytes.extend_from_slice(b"Movable\0");
    let mut table = Table::default();
    let event = decode(&layout, &raw.bytes, &mut table).unwrap();
    assert_eq!((event.name, event.other_name, event.args[0]), (0, 1, -5));
    assert_eq!(table.names, [&b"Normal"[..], b"Movable"]);
}
