"""One peer of compare.py in a process of its own: says what it computes, and times its ways when told to.

    compare_peers.py PEER FOLDER NETWORK BATCH train|infer THREADS

FOLDER holds what `prepare` made. A line of JSON comes out: the peer's version, and for every way its outputs (losses of three
steps in training) or why it failed. Then for every line {"way", "seconds"} on standard input: {"ms"}, the median of single runs.
"""
import json
import os
import statistics
import subprocess
import sys
import time
import traceback

import numpy as np

RATE, MOMENTUM = 0.001, 0.9


class Work:
    def __init__(self, folder, network, batch, mode, threads):
        self.folder, self.network, self.batch, self.train, self.threads = folder, network, int(batch), mode == "train", int(threads)
        self.x, self.y = np.load(f"{folder}/x.npy"), np.load(f"{folder}/y.npy")  # N C H W; what nnlite answers
        self.x = np.resize(self.x, (self.batch, *self.x.shape[1:]))
        self.shape_of_y = (self.batch, *self.y.shape[1:])
        random = np.random.default_rng(1)
        if self.y.ndim == 2:
            self.targets = random.integers(0, self.y.shape[1], self.batch)
        else:  # a mask
            self.targets = random.integers(0, 2, (self.batch, *self.y.shape[1:])).astype(np.float32)
        if self.train:
            self.x = random.standard_normal(self.x.shape, np.float32)

    def net(self):
        import compare_networks
        import nnl_file

        return compare_networks.with_weights(self.network, nnl_file.NnlFile(f"{self.folder}/net.nnl")).train(self.train)


def prepare(work):
    """The network of net.nnl for every peer: ONNX, from which MNN's, and ncnn's by pnnx."""
    import torch

    net, x = work.net(), torch.tensor(work.x)
    torch.onnx.export(net, (x,), f"{work.folder}/net.onnx", input_names=["x"], output_names=["y"], external_data=False)
    if work.batch == 1:
        import pnnx
        from _tools import mnnconvert  # the module MNN.tools would install another package and call home

        torch.jit.trace(net, x).save(f"{work.folder}/net.pt")
        subprocess.run([pnnx.EXEC_PATH, f"{work.folder}/net.pt", "fp16=0",
                        "inputshape=[" + ",".join(map(str, x.shape)) + "]"], check=True)
        mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", f"{work.folder}/net.onnx", "--MNNModel", f"{work.folder}/net.mnn"])


def pytorch(work):
    import torch

    torch.set_num_threads(work.threads)
    ways = {"eager": (torch.contiguous_format, False), "torch.compile": (torch.contiguous_format, True)}
    if work.network != "mlp":
        ways["channels_last"] = (torch.channels_last, False)

    def make(memory_format, compiled):
        net = work.net().to(memory_format=memory_format)
        x, y = torch.tensor(work.x).to(memory_format=memory_format), torch.tensor(work.targets)
        if not work.train:
            net = torch.compile(net) if compiled else net

            def infer():
                with torch.inference_mode():
                    return net(x)
            return infer, lambda: infer().numpy()
        loss = torch.nn.CrossEntropyLoss() if y.ndim == 1 else torch.nn.BCEWithLogitsLoss()
        optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM, fused=True)  # its fastest

        def forward(x, y):
            return loss(net(x), y)
        forward = torch.compile(forward) if compiled else forward

        def step():
            optimizer.zero_grad(set_to_none=True)
            value = forward(x, y)
            value.backward()
            optimizer.step()
            return value
        return step, lambda: step().item()
    return torch.__version__, {way: lambda how=how: make(*how) for way, how in ways.items()}




def jax(work):
    import compare_networks
    import jax
    import jax.numpy as jnp

    def make():
        net = compare_networks.Jax(work.net())
        x = jnp.array(work.x.transpose(0, 2, 3, 1))
        y = jnp.array(work.targets if work.y.ndim == 2 else work.targets.transpose(0, 2, 3, 1))

        def loss(parameters, statistics, x, y):
            z, statistics = net.forward(parameters, statistics, x)
            if y.ndim == 1:
                return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], 1).mean(), statistics
            return (jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-abs(z)))).mean(), statistics

        def whole_step(parameters, momentum, statistics, x, y):
            (value, statistics), gradients = jax.value_and_grad(loss, has_aux=True)(parameters, statistics, x, y)
            momentum = jax.tree.map(lambda m, g: MOMENTUM * m + g, momentum, gradients)
            return jax.tree.map(lambda p, m: p - RATE * m, parameters, momentum), momentum, statistics, value
        jitted = jax.jit(whole_step, donate_argnums=(0, 1, 2))
        state = (net.parameters, jax.tree.map(jnp.zeros_like, net.parameters), net.statistics)

        def step():
            nonlocal state
            *state, value = jitted(*state, x, y)
            return jax.block_until_ready(value)
        return step, lambda: float(step())
    return jax.__version__, {"jit": make}


def onnxruntime(work):
    import onnxruntime

    def make():
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = work.threads, 1
        session = onnxruntime.InferenceSession(f"{work.folder}/net.onnx", options, providers=["CPUExecutionProvider"])
        y = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(work.shape_of_y, np.float32))
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(work.x))
        binding.bind_ortvalue_output("y", y)

        def infer():
            session.run_with_iobinding(binding)
        return infer, lambda: (infer(), y.numpy())[1]
    return onnxruntime.__version__, {"io binding": make}


def openvino(work):
    import openvino

    def make():
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(f"{work.folder}/net.onnx"), "CPU", {
            "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": work.threads, "NUM_STREAMS": 1})
        request = compiled.create_infer_request()
        request.set_input_tensor(openvino.Tensor(work.x))

        def infer():
            return request.infer(share_outputs=True)
        return infer, lambda: infer()[0]
    return openvino.__version__.split("-")[0], {"f32": make}


def ncnn(work):
    import ncnn

    def make():
        net = ncnn.Net()
        net.opt.num_threads = work.threads
        for option in dir(net.opt):
            if option.startswith(("use_fp16", "use_bf16", "use_int8")):
                setattr(net.opt, option, False)
        net.load_param(f"{work.folder}/net.ncnn.param")
        net.load_model(f"{work.folder}/net.ncnn.bin")
        x = ncnn.Mat(work.x[0])

        def infer():
            extractor = net.create_extractor()
            extractor.input("in0", x)
            return extractor.extract("out0")[1]
        return infer, lambda: np.array(infer())[None]
    return ncnn.__version__, {"f32": make}


def mnn(work):
    import MNN

    def make():
        net = MNN.Interpreter(f"{work.folder}/net.mnn")
        session = net.createSession({"backend": "CPU", "numThread": work.threads, "precision": "high"})

        def tensor(values):
            return MNN.Tensor(values.shape, MNN.Halide_Type_Float, values, MNN.Tensor_DimensionType_Caffe)
        y = tensor(np.zeros(work.shape_of_y, np.float32))
        net.getSessionInput(session).copyFrom(tensor(work.x))

        def infer():
            net.runSession(session)

        def outputs():
            infer()
            net.getSessionOutput(session).copyToHostTensor(y)
            return np.array(y.getNumpyData())
        return infer, outputs
    return MNN.version(), {"f32": make}


PEERS = {"PyTorch": pytorch, "JAX": jax, "ONNX Runtime": onnxruntime, "OpenVINO": openvino, "ncnn": ncnn, "MNN": mnn}


def median_ms(run, seconds, longest=10):
    """Of single runs, five at least if they do not take too long; a quarter of the time goes before to warm up."""
    now = time.perf_counter
    end = now() + seconds / 4
    run()
    while now() < end:
        run()
    times, start = [], now()
    while now() < start + seconds or (len(times) < 5 and now() < start + longest):
        before = now()
        run()
        times.append((now() - before) * 1e3)
    return statistics.median(times)


def main():
    answers = os.fdopen(os.dup(1), "w")  # libraries print to the other
    os.dup2(2, 1)

    def say(answer):
        print(json.dumps(answer), file=answers, flush=True)
    peer, *words = sys.argv[1:]
    work = Work(*words)
    if peer == "prepare":
        prepare(work)
        return
    version, makers = PEERS[peer](work)
    runs, computed, failed = {}, {}, {}
    for way, make in makers.items():
        try:
            runs[way], outputs = make()
            computed[way] = [outputs() for _ in range(3)] if work.train else np.array(outputs()).ravel().tolist()
        except Exception as error:  # a peer that cannot do it does not stop the others
            traceback.print_exc()
            failed[way] = (str(error).strip().splitlines() or [type(error).__name__])[0]
    say({"version": version, "computed": computed, "failed": failed})
    for line in sys.stdin:
        order = json.loads(line)
        say({"ms": median_ms(runs[order["way"]], order["seconds"])})


if __name__ == "__main__":
    main()
