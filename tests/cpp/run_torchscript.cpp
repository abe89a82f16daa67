// Loads a TorchScript loss with gradient and prints its outputs: what a program without Python does with it.
// Usage: run_torchscript LOSS.pt INPUTS.pt   (INPUTS.pt: a list of tensors, by torch.save)
#include <torch/script.h>

#include <fstream>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <vector>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: run_torchscript LOSS.pt INPUTS.pt\n";
    return 2;
  }
  torch::jit::script::Module loss = torch::jit::load(argv[1]);
  std::ifstream file(argv[2], std::ios::binary);
  std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  torch::jit::IValue loaded = torch::jit::pickle_load(bytes);
  std::vector<torch::jit::IValue> inputs = loaded.toListRef().vec();
  std::cout << std::setprecision(9);
  auto outputs = loss.forward(inputs).toTuple();
  for (const torch::jit::IValue& output : outputs->elements()) {
    at::Tensor numbers = output.toTensor().flatten().contiguous();
    for (int64_t i = 0; i < numbers.numel(); ++i) std::cout << numbers[i].item<float>() << ' ';
    std::cout << '\n';
  }
}
