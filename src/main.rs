//! The program; everything is in the library.

#[global_allocator]
static ALLOCATOR: tintype::allocator::LargeBlocks = tintype::allocator::LargeBlocks;

fn main() -> std::process::ExitCode {
    tintype::cli::main()
}
