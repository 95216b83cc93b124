//! Running statistics before a batch, to put back when the batch is skipped.

use std::any::Any;
use std::collections::HashMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

/// The tensors of a module by their paths.
pub(crate) struct Buffers(HashMap<String, Box<dyn Any>>);

impl Buffers {
    /// Everything as it is now, pending updates included.
    pub(crate) fn of<M: Module>(module: &M) -> Self {
        struct Collect {
            path: Vec<String>,
            tensors: HashMap<String, Box<dyn Any>>,
        }
        impl ModuleVisitor for Collect {
            fn enter_module(&mut self, name: &str, _container_type: &str) {
                self.path.push(name.to_string());
            }

            fn exit_module(&mut self, _name: &str, _container_type: &str) {
                self.path.pop();
            }

            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                self.tensors.insert(self.path.join("."), Box::new(param.val()));
            }
        }
        let mut collect = Collect { path: Vec::new(), tensors: HashMap::new() };
        module.valid().visit(&mut collect);
        Self(collect.tensors)
    }

    /// Puts what requires no gradient back. Running statistics are shared by all clones of a module, so it is done
    /// through one.
    pub(crate) fn restore<M: Module>(self, module: &M) {
        struct Restore {
            path: Vec<String>,
            before: HashMap<String, Box<dyn Any>>,
        }
        impl ModuleMapper for Restore {
            fn enter_module(&mut self, name: &str, _container_type: &str) {
                self.path.push(name.to_string());
            }

            fn exit_module(&mut self, _name: &str, _container_type: &str) {
                self.path.pop();
            }

            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                if param.is_require_grad() {
                    return param;
                }
                let before = self.before.remove(&self.path.join("."));
                match before.and_then(|tensor| tensor.downcast::<Tensor<D>>().ok()) {
                    Some(before) => {
                        param.map(|tensor| if tensor.is_autodiff() { Tensor::from_inner(*before) } else { *before })
                    }
                    None => param,
                }
            }
        }
        drop(module.valid()); // takes pending updates in, so that none comes after what is put back
        drop(module.clone().map(&mut Restore { path: Vec::new(), before: self.0 }));
    }
}
