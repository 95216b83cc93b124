use burn::tensor::{Device, Distribution, Int, Tensor};
use burn_distill_losses::*;
use std::time::Instant;
fn best(mut f: impl FnMut() -> f64, n: usize) -> f64 {
    (0..n).map(|_| f()).fold(f64::MAX, f64::min) * 1e3
}
fn main() {
    let d = Device::flex();
    let ad = d.clone().autodiff();
    for (rows, v, n) in [(128usize, 100usize, 200), (128, 1000, 100), (1024, 32000, 7), (256, 151936, 7)] {
        let s0 = Tensor::<2>::random([rows, v], Distribution::Normal(0., 3.), &d).autodiff().require_grad();
        let _ = &ad;
        let t0 = Tensor::<2>::random([rows, v], Distribution::Normal(0., 3.), &d);
        let tg = Tensor::<1, Int>::arange(0..rows as i64, &d).remainder_scalar(v as i64);
        let mut c = vec![0f32; rows * v];
        let (a, b) = (vec![1f32; rows * v], vec![2f32; rows * v]);
        let floor = best(
            || {
                let t = Instant::now();
                std::thread::scope(|sc| {
                    let h = (rows * v) / 2;
                    let (c1, c2) = c.split_at_mut(h);
                    let (a, b) = (&a, &b);
                    let j = sc.spawn(move || {
                        for i in 0..h {
                            c1[i] = a[i] + b[i];
                        }
                    });
                    for i in 0..c2.len() {
                        c2[i] = a[h + i] + b[h + i];
                    }
                    j.join().unwrap();
                });
                t.elapsed().as_secs_f64()
            },
            n,
        );
        println!("[{rows}x{v}] floor {floor:.3} ms");
        type F = Box<dyn Fn(Tensor<2>, Tensor<2>) -> Tensor<1>>;
        let kd = KdLossConfig::new().with_temperature(2.0).init().unwrap();
        let rkl = ReverseKlLossConfig::new().init().unwrap();
        let jsd = JsdLossConfig::new().init().unwrap();
        let skl = SkewKlLossConfig::new().init().unwrap();
        let dkd = DkdLossConfig::new().init().unwrap();
        let kdc = kd.clone();
        let jsdc = jsd.clone();
        let sp = SparseLogits::from_dense(t0.clone(), 64.min(v), Tail::Bucket).unwrap();
        let kds = KdLossConfig::new().with_temperature(2.0).init().unwrap();
        let rows_: Vec<(&str, F)> = vec![
            ("kd", Box::new(move |s, t| kd.forward(s, t, None))),
            ("rkl", Box::new(move |s, t| rkl.forward(s, t, None))),
            ("jsd", Box::new(move |s, t| jsd.forward(s, t, None))),
            ("skl", Box::new(move |s, t| skl.forward(s, t, None))),
            ("dkd", Box::new(move |s, t| dkd.forward(s, t, tg.clone(), None))),
            ("sparse64", Box::new(move |s, _| kds.forward(s, sp.clone(), None))),
            ("kd composed", Box::new(move |s, t| kdc.forward_composed(s, t, None))),
            ("jsd composed", Box::new(move |s, t| jsdc.forward_composed(s, t, None))),
        ];
        for (name, f) in &rows_ {
            let n = if name.contains("composed") { n.min(20) / 2 + 1 } else { n };
            let step = |t: Tensor<2>| {
                let i = Instant::now();
                let l = f(s0.clone(), t);
                let g = s0.grad(&l.backward()).unwrap();
                let x: f32 = g.slice([0..1, 0..1]).into_scalar();
                std::hint::black_box(x);
                i.elapsed().as_secs_f64()
            };
            let kept = best(|| step(t0.clone()), n);
            let handed = best(|| step(t0.clone() * 1.0 + 0.0), n);
            let eval = best(
                || {
                    let i = Instant::now();
                    let x: f32 = f(s0.clone().inner(), t0.clone()).into_scalar();
                    std::hint::black_box(x);
                    i.elapsed().as_secs_f64()
                },
                n,
            );
            println!(
                "  {name:12} kept {kept:8.3}  handed {handed:8.3} ({:.2} floors)  eval {eval:8.3}",
                handed / floor
            );
        }
    }
}
