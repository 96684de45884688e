//! Rows of `isa/matrix.rs`.

use crate::warp::WarpRow;

#[rustfmt::skip]
pub fn warp_rows() -> Vec<WarpRow> {
    let fill = "shl.b32 %x1, %t, 2; mov.u32 %x2, sm; add.u32 %x1, %x1, %x2; mul.lo.u32 %x3, %t, 0x20001; add.u32 %x3, %x3, 0x10000; st.shared.u32 [%x1], %x3; bar.warp.sync 0xffffffff; and.b32 %x4, %t, 7; shl.b32 %x4, %x4, 4; add.u32 %x4, %x4, %x2;";
    // Shared memory then holds an 8 x 8 matrix of 16-bit elements: row l / 4, column l % 4 * 2 has
    // the low half.
    let element = |row: u32, col: u32| {
        let l = row * 4 + col / 2;
        let v = l * 0x20001 + 0x10000;
        if col.is_multiple_of(2) {
            v & 0xffff
        } else {
            v >> 16
        }
    };
    let ld = format!("{fill} ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%r}}, [%x4];");
    let ldt = format!("{fill} ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {{%r}}, [%x4];");
    let st = format!(
        "{fill} ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%x5}}, [%x4]; bar.warp.sync -1; stmatrix.sync.aligned.m8n8.x1.trans.shared.b16 [%x4], {{%x5}}; bar.warp.sync -1; ld.shared.u32 %r, [%x1];"
    );
    let mv = format!(
        "{fill} ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%x5}}, [%x4]; movmatrix.sync.aligned.m8n8.trans.b16 %r, %x5;"
    );
    let whole = move |l: u32| element(l / 4, l % 4 * 2) | element(l / 4, l % 4 * 2 + 1) << 16;
    let turned = move |l: u32| element(l % 4 * 2, l / 4) | element(l % 4 * 2 + 1, l / 4) << 16;
    vec![
        ("ldmatrix", ld, Box::new(whole)),
        ("ldmatrix trans", ldt, Box::new(turned)),
        ("stmatrix trans", st, Box::new(turned)),
        ("movmatrix", mv, Box::new(turned)),
    ]
}
