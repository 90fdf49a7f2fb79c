use std::sync::Arc;
use tintype::{bundle::*, engine::{self, NamedTensor, Threads}};
fn main() {
    env_logger::init();
    let a: Vec<String> = std::env::args().collect();
    match a[1].as_str() {
        "import" => {
            let p = match a[4].as_str() { "f32" => tintype::import::Precision::F32, "f16" => tintype::import::Precision::F16, _ => tintype::import::Precision::Int8 };
            match tintype::import::import(a[2].as_ref(), a[3].as_ref(), p, &mut |_, _| ()) {
                Ok(r) => println!("{}", serde_json::to_string_pretty(&r).unwrap()),
                Err(e) => { let mut e: &dyn std::error::Error = &e; loop { println!("{e}"); match e.source() { Some(s) => e = s, None => break } } }
            }
        }
        "run" => {
            let b = Arc::new(Bundle::open(a[2].as_ref()).unwrap());
            let t = std::time::Instant::now();
            let mut c = engine::Component::load(&b, Component::from_name(&a[3]).unwrap(), &Threads::new(2)).unwrap();
            let mut npz = npyz::npz::NpzArchive::open(&a[4]).unwrap();
            let mut ins = vec![];
            for i in c.inputs().to_vec() {
                let n = npz.by_name(&i.name).unwrap().unwrap();
                let shape: Vec<usize> = n.shape().iter().map(|&x| x as usize).collect();
                let v: Vec<f32> = match i.dtype { engine::graph::InputType::F32 => n.into_vec::<f32>().unwrap(), _ => n.into_vec::<i64>().unwrap().iter().map(|&x| x as f32).collect() };
                ins.push(NamedTensor::new(&i.name, &shape, v));
            }
            let o = c.run(&ins); println!("load+first {:?}", t.elapsed());
            let o = match o { Ok(o) => o, Err(e) => panic!("{e:?}") };
            for _ in 0..3 { let t = std::time::Instant::now(); c.run(&ins).unwrap(); println!("run {:?}", t.elapsed()); }
            for o in o {
                let r = npz.by_name(&o.name).unwrap().unwrap().into_vec::<f32>().unwrap();
                let d: f64 = r.iter().zip(&o.values).map(|(a, b)| ((a - b) as f64).powi(2)).sum();
                let n: f64 = r.iter().map(|a| (*a as f64).powi(2)).sum();
                println!("{} {:?} rel l2 {:e}", o.name, o.shape, (d / n).sqrt());
            }
        }
        _ => {}
    }
}
