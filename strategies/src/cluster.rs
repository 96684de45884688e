//! Vectors that point the same way: cosines, and clusters by average linkage.

/// The cosine of two vectors; 0 beside a vector of zeros.
pub(crate) fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}

/// The cluster of each vector, numbered from 0 by its first member: agglomerative clustering by
/// average linkage (UPGMA, Sokal and Michener 1958) over cosine distances, 1 - cosine, which stops
/// where no two clusters are at most `distance` apart. Of equal distances the earlier pair merges.
/// SciPy's `fcluster(linkage(x, "average", "cosine"), distance, "distance")` gives the same sets.
pub(crate) fn clusters(vectors: &[Vec<f64>], distance: f64) -> Vec<usize> {
    let mut labels: Vec<usize> = (0..vectors.len()).collect();
    let mut sizes = vec![1.0; vectors.len()];
    let mut apart: Vec<Vec<f64>> = (vectors.iter().enumerate())
        .map(|(i, a)| vectors[..i].iter().map(|b| 1.0 - cosine(a, b)).collect())
        .collect();
    // Clusters by the index of their first member.
    let mut alive = labels.clone();
    while let Some((near, into, from)) = nearest(&apart, &alive)
        && near <= distance
    {
        let pair = |a: usize, b: usize| (a.max(b), a.min(b));
        for &other in alive.iter().filter(|&&c| c != into && c != from) {
            let ((i, j), (k, l)) = (pair(other, into), pair(other, from));
            let sum = sizes[into] * apart[i][j] + sizes[from] * apart[k][l];
            apart[i][j] = sum / (sizes[into] + sizes[from]);
        }
        sizes[into] += sizes[from];
        alive.retain(|&cluster| cluster != from);
        for label in labels.iter_mut().filter(|label| **label == from) {
            *label = into;
        }
    }
    let number = |label: &usize| alive.partition_point(|cluster| cluster < label);
    labels.iter().map(number).collect()
}

/// The two nearest clusters: their distance, the earlier and the later one.
fn nearest(apart: &[Vec<f64>], alive: &[usize]) -> Option<(f64, usize, usize)> {
    let pairs = (alive.iter().enumerate())
        .flat_map(|(i, &later)| alive[..i].iter().map(move |&earlier| (earlier, later)));
    pairs
        .map(|(earlier, later)| (apart[later][earlier], earlier, later))
        .min_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vector at an angle in degrees.
    fn at(degrees: f64) -> Vec<f64> {
        let angle = degrees.to_radians();
        vec![angle.cos(), angle.sin()]
    }

    #[test]
    fn average_linkage_table() {
        // 1 - cos 10° = 0.0152, 1 - cos 18° = 0.0489, 1 - cos 20° = 0.0603.
        type Case = (&'static [f64], f64, &'static [usize]);
        let cases: &[Case] = &[
            (&[], 0.05, &[]),
            (&[0.0], 0.05, &[0]),
            (&[0.0, 18.0], 0.05, &[0, 0]),
            (&[0.0, 20.0], 0.05, &[0, 1]),
            // Numbered by first members; the length of a vector does not count.
            (&[0.0, 90.0, 5.0, 95.0, 180.0], 0.05, &[0, 1, 0, 1, 2]),
            // 0 and 10 merge; 22 is (0.0728 + 0.0219) / 2 = 0.0473 from the two on average. Single
            // linkage would chain further, complete linkage would not join it.
            (&[0.0, 10.0, 22.0], 0.05, &[0, 0, 0]),
            (&[0.0, 10.0, 23.0], 0.05, &[0, 0, 1]),
            // A distance that nothing exceeds.
            (&[0.0, 90.0, 180.0], 2.0, &[0, 0, 0]),
        ];
        for &(angles, distance, expected) in cases {
            let vectors: Vec<Vec<f64>> = angles.iter().map(|&angle| at(angle)).collect();
            assert_eq!(clusters(&vectors, distance), expected, "{angles:?}");
        }
    }

    #[test]
    fn zeros_are_like_nothing() {
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), 0.0);
        let vectors = [vec![0.0, 0.0], vec![0.0, 0.0], vec![3.0, 0.0]];
        assert_eq!(clusters(&vectors, 0.5), [0, 1, 2]);
    }
}
