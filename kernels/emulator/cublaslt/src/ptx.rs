//! The kernel: `D[m, n] = alpha sum_k A[k, m] B[k, n] + beta C[m, n] (+ bias[m])`, column-major.
//!
//! A warp computes 8 rows of D (features of a linear layer) and 16 columns (its rows) by `mma.sync`
//! m16n8k16. Elements are loaded one by one, so that any alignment works and no byte beyond k is
//! read.

/// Rows of D that a warp computes.
pub const OUTPUTS: u64 = 8;
/// Columns of D that a warp computes.
pub const ROWS: u64 = 16;
/// The kernels' names, by D's type: f32, bf16.
pub const NAMES: [&str; 2] = ["cublaslt_f32", "cublaslt_bf16"];

/// Loads two neighbouring elements along k of the row at `base`, `offset` elements on, into `to`.
fn pair(to: &str, base: &str, there: &str, offset: u32) -> String {
    let mut text = String::new();
    for (half, add) in [("%h0", 0), ("%h1", 1)] {
        let index = offset + add;
        text += &format!(
            "add.u32 %at, %kc, {index};\nsetp.lt.and.u32 %in, %at, %k, {there};\nmov.u16 {half}, 0;\n\
             @%in ld.global.u16 {half}, [{base}+{}];\n",
            2 * index
        );
    }
    text + &format!("mov.b32 {to}, {{%h0, %h1}};\n")
}

/// Element `index` of a lane's four of D: sum `sum`, row `row` of D, column `col`.
fn element(bf16: bool, index: usize, sum: &str, row: &str, col: &str) -> String {
    let (shift, load, store) = if bf16 {
        (
            1,
            "ld.global.u16 %h0, [%addr];\ncvt.u32.u16 %at, %h0;\nshl.b32 %at, %at, 16;\n\
             mov.b32 %old, %at;\n",
            "mov.f32 %zero, 0f00000000;\ncvt.rn.bf16x2.f32 %at, %zero, %out;\n\
             cvt.u16.u32 %h0, %at;\nst.global.u16 [%addr], %h0;\n",
        )
    } else {
        (
            2,
            "ld.global.f32 %old, [%addr];\n",
            "st.global.f32 [%addr], %out;\n",
        )
    };
    let place = |from: &str| {
        format!(
            "cvt.u64.u32 %addr, {col};\nmul.lo.u64 %addr, %addr, %ldd;\ncvt.u64.u32 %wide, {row};\n\
             add.u64 %addr, %addr, %wide;\nshl.b64 %addr, %addr, {shift};\nadd.u64 %addr, %addr, {from};\n"
        )
    };
    let bias = format!(
        "setp.eq.u64 %more, %bias, 0;\n@%more bra unbiased{index};\ncvt.u64.u32 %addr, {row};\n\
         shl.b64 %addr, %addr, {shift};\nadd.u64 %addr, %addr, %bias;\n{load}\
         add.f32 %out, %out, %old;\nunbiased{index}:\n"
    );
    format!(
        "setp.lt.u32 %in, {row}, %m;\nsetp.lt.and.u32 %in, {col}, %n, %in;\n@!%in bra done{index};\n\
         mul.f32 %out, {sum}, %alpha;\nsetp.neu.f32 %more, %beta, 0f00000000;\n\
         @!%more bra write{index};\n{}{load}fma.rn.f32 %out, %beta, %old, %out;\nwrite{index}:\n\
         {bias}{}{store}done{index}:\n",
        place("%c"),
        place("%d"),
    )
}

/// The head of a kernel: its parameters and registers.
fn head(name: &str) -> String {
    let parameters = [
        ("u64", "a"),
        ("u64", "b"),
        ("u64", "c"),
        ("u64", "d"),
        ("u64", "bias"),
        ("u64", "lda"),
        ("u64", "ldb"),
        ("u64", "ldd"),
        ("u32", "m"),
        ("u32", "n"),
        ("u32", "k"),
        ("f32", "alpha"),
        ("f32", "beta"),
    ];
    let declared: Vec<String> = parameters
        .iter()
        .map(|(kind, name)| format!(".param .{kind} p_{name}"))
        .collect();
    let mut text = format!(
        ".visible .entry {name}({})\n{{\n.reg .pred %in, %wrow, %xlow, %xhigh, %more;\n\
         .reg .b16 %h0, %h1;\n.reg .b32 %lane, %group, %at, %kc, %step, %first, %low, %high, %row, %next;\n\
         .reg .b32 %a0, %a1, %a2, %a3, %b0, %b1;\n.reg .f32 %s0, %s1, %s2, %s3, %old, %out, %zero;\n\
         .reg .b64 %addr, %wide, %wat, %lowat, %highat;\n",
        declared.join(", ")
    );
    for (kind, name) in parameters {
        let space = match kind {
            "f32" => ".reg .f32",
            "u64" => ".reg .b64",
            _ => ".reg .b32",
        };
        text += &format!("{space} %{name};\nld.param.{kind} %{name}, [p_{name}];\n");
    }
    text
}

/// The places and addresses of a lane, and its sums at zero.
fn places() -> String {
    // Lane l has row l / 4 of either operand, and l / 4 + 8 of x, at columns 2 (l % 4) and 8
    // further on.
    let mut text = String::from(
        "mov.u32 %lane, %tid.x;\nshr.u32 %group, %lane, 2;\nand.b32 %kc, %lane, 3;\n\
             shl.b32 %kc, %kc, 1;\nmov.u32 %first, %ctaid.x;\nshl.b32 %first, %first, 3;\n\
             mov.u32 %low, %ctaid.y;\nshl.b32 %low, %low, 4;\nadd.u32 %row, %first, %group;\n\
             setp.lt.u32 %wrow, %row, %m;\n",
    );
    // The outputs of this lane: rows of D `first`, `next`.
    text += "add.u32 %low, %low, %group;\nadd.u32 %high, %low, 8;\n\
             setp.lt.u32 %xlow, %low, %n;\nsetp.lt.u32 %xhigh, %high, %n;\n";
    for (addr, base, row, pitch) in [
        ("%wat", "%a", "%row", "%lda"),
        ("%lowat", "%b", "%low", "%ldb"),
        ("%highat", "%b", "%high", "%ldb"),
    ] {
        text += &format!(
            "cvt.u64.u32 {addr}, {row};\nmul.lo.u64 {addr}, {addr}, {pitch};\ncvt.u64.u32 %wide, %kc;\n\
             add.u64 {addr}, {addr}, %wide;\nshl.b64 {addr}, {addr}, 1;\nadd.u64 {addr}, {addr}, {base};\n"
        );
    }
    text += "add.u32 %first, %first, %kc;\nadd.u32 %next, %first, 1;\n";
    for sum in ["%s0", "%s1", "%s2", "%s3"] {
        text += &format!("mov.f32 {sum}, 0f00000000;\n");
    }
    text
}

/// The loop over k.
fn sums() -> String {
    let mut text = String::from(
        "mov.u32 %step, 0;\nsetp.lt.u32 %more, %step, %k;\n@!%more bra summed;\nloop:\n",
    );
    for (to, base, there, offset) in [
        ("%a0", "%lowat", "%xlow", 0),
        ("%a1", "%highat", "%xhigh", 0),
        ("%a2", "%lowat", "%xlow", 8),
        ("%a3", "%highat", "%xhigh", 8),
        ("%b0", "%wat", "%wrow", 0),
        ("%b1", "%wat", "%wrow", 8),
    ] {
        text += &pair(to, base, there, offset);
    }
    text + "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%s0, %s1, %s2, %s3}, \
             {%a0, %a1, %a2, %a3}, {%b0, %b1}, {%s0, %s1, %s2, %s3};\n\
             add.u32 %step, %step, 16;\nadd.u32 %kc, %kc, 16;\nadd.u64 %wat, %wat, 32;\n\
             add.u64 %lowat, %lowat, 32;\nadd.u64 %highat, %highat, 32;\n\
             setp.lt.u32 %more, %step, %k;\n@%more bra loop;\nsummed:\n"
}

fn kernel(bf16: bool) -> String {
    let mut text = head(NAMES[usize::from(bf16)]) + &places() + &sums();
    let lane = [
        ("%s0", "%first", "%low"),
        ("%s1", "%next", "%low"),
        ("%s2", "%first", "%high"),
        ("%s3", "%next", "%high"),
    ];
    for (index, (sum, row, col)) in lane.into_iter().enumerate() {
        text += &element(bf16, index, sum, row, col);
    }
    text + "ret;\n}\n"
}

/// Both kernels.
pub fn module() -> String {
    format!(
        ".version 7.8\n.target sm_80\n.address_size 64\n{}{}",
        kernel(false),
        kernel(true)
    )
}
