from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from yolo_stable.autopsy import Break, Location, locate, locate_call


def broken(found: Location) -> Break:
    assert not found.healthy
    assert found.first is not None
    return found.first


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(inplace=True), nn.Flatten(), nn.Linear(4 * 36, 5)
    )


def mean_square(output: Tensor) -> Tensor:
    return output.square().mean()


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(7))


class Scaled(nn.Module):
    """A linear layer and a function of what it gives."""

    def __init__(self, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3)
        nn.init.eye_(self.fc.weight)
        nn.init.zeros_(self.fc.bias)
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.fc(x))


def test_a_healthy_pass_is_healthy() -> None:
    found = locate(small(), images(), mean_square)
    assert found.healthy
    assert (found.first, found.also, found.bad_gradients, found.bad_buffers) == (None, (), (), ())
    assert found.loss is not None
    assert math.isfinite(found.loss)
    assert found.operations > 10
    assert set(found.digests) == {"loss", "gradients", "buffers"}


class TestForward:
    def test_a_convolution_that_overflows_is_named_with_its_place_and_ranges(self) -> None:
        model = small()
        with torch.no_grad():
            cast("Any", model[0]).weight[2] = 3e38
        x = images()
        x[1] = 2.0
        x[0] = 0.0
        one = broken(locate(model, x, mean_square))
        assert (one.phase, one.module, one.module_type, one.op) == (
            "forward",
            "0",
            "Conv2d",
            "aten.convolution.default",
        )
        assert (one.output, one.index, one.value, one.rows) == (0, (1, 2, 0, 0), "inf", (1,))
        assert (one.non_finite, one.numel, one.shape, one.dtype) == (36, 2 * 4 * 36, (2, 4, 6, 6), "float32")
        assert [(r.name, r.low, r.high, r.non_finite) for r in one.inputs][:1] == [("input", 0.0, 2.0, 0)]
        assert one.inputs[1].high == pytest.approx(3e38)
        assert (one.wide, one.origin, one.ordinal) == ("overflow", "", 1)

    def test_a_logarithm_of_zero_is_mathematically_infinite(self) -> None:
        one = broken(locate(Scaled(torch.log), torch.tensor([[1.0, 0.0, 2.0]]), torch.sum))
        assert (one.phase, one.module, one.op, one.value, one.index) == (
            "forward",
            "",
            "aten.log.default",
            "-inf",
            (0, 1),
        )
        assert one.wide == "not finite"
        assert one.source.split(":")[0].endswith("test_locate.py")
        assert one.source.endswith(" in forward")

    def test_the_variance_of_batchnorm_overflows_into_its_buffer_alone(self) -> None:
        model = nn.Sequential(nn.Identity(), nn.BatchNorm1d(2))
        found = locate(model, torch.tensor([[1e20, 1.0], [-1e20, 2.0], [0.0, 3.0]]), lambda y: y.square().sum())
        one = broken(found)
        assert (one.module, one.op) == ("1", "aten.native_batch_norm.default")
        assert (one.output, one.shape, one.index, one.value) == (4, (2,), (0,), "inf")
        assert one.wide == "overflow"
        assert found.bad_buffers == ("1.running_var",)
        assert found.loss is not None
        assert math.isfinite(found.loss)

    def test_the_loss_function_is_a_phase_of_its_own(self) -> None:
        one = broken(locate(small(), images(), lambda y: (y * 0).log().mean()))
        assert (one.phase, one.module, one.op) == ("loss", "", "aten.log.default")

    def test_a_loss_made_inside_of_the_model_is_the_loss_phase(self) -> None:
        class Network(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(3, 3)

            def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
                before = x * 1.0
                loss = (self.fc(before) * 0).log().sum()
                return loss, {"log": loss.detach()}

        found = locate(Network(), torch.ones(1, 3))
        assert broken(found).phase == "loss"
        assert found.items == {"log": -math.inf}

    def test_a_function_after_the_last_layer_is_still_the_forward_pass(self) -> None:
        assert broken(locate(Scaled(torch.log), torch.zeros(1, 3), torch.sum)).phase == "forward"

    def test_a_module_that_is_not_registered_goes_by_its_type(self) -> None:
        hidden = [nn.Softplus()]
        hidden[0].forward = lambda input: input / 0
        one = broken(locate(Scaled(lambda y: hidden[0](y)), torch.ones(1, 3), torch.sum))
        assert (one.module, one.module_type) == ("<Softplus>", "Softplus")

    def test_a_transformer_classifier_whose_linear_layer_overflows(self) -> None:
        class Classifier(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
                self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
                self.head = nn.Linear(8, 4)

            def forward(self, x: Tensor) -> Tensor:
                return self.head(self.encoder(x).mean(1))

        torch.manual_seed(0)
        model = Classifier()
        cast("Any", model.encoder.layers[1]).linear1.weight.data[3] = 3e38
        x, target = torch.randn(2, 5, 8), torch.tensor([0, 1])
        one = broken(locate(model, x, lambda y: functional.cross_entropy(y, target)))
        assert (one.module, one.op, one.wide) == ("encoder.layers.1.linear1", "aten.addmm.default", "overflow")
        assert one.source.endswith(" in forward")

    @pytest.mark.parametrize("train", [True, False])
    def test_a_float16_overflow_under_autocast_is_one_of_precision(self, train: bool) -> None:
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).train(train)
        nn.init.constant_(cast("Any", model[1]).weight, 300.0)
        nn.init.constant_(cast("Any", model[0]).weight, 100.0)

        def call() -> Tensor:
            with torch.autocast("cpu", dtype=torch.float16):
                return model(torch.ones(1, 4)).float().sum()

        one = broken(locate_call(model, call))
        assert (one.module, one.op, one.wide, one.dtype) == ("1", "aten.addmm.default", "overflow", "float16")


class TestMasks:
    def test_a_mask_of_minus_infinity_before_a_softmax_is_healthy(self) -> None:
        def attend(y: Tensor) -> Tensor:
            return y.masked_fill(torch.tensor([[False, True, False]]), -math.inf).softmax(-1)

        assert locate(Scaled(attend), torch.randn(2, 3), mean_square).healthy

    def test_the_overflow_is_blamed_and_not_the_mask_before_it(self) -> None:
        def attend(y: Tensor) -> Tensor:
            masked = y.masked_fill(torch.tensor([[False, True, False]]), -math.inf)
            return (masked + (y * 1e38) * 1e10).softmax(-1)

        one = broken(locate(Scaled(attend), torch.ones(2, 3), mean_square))
        assert (one.op, one.value) == ("aten.mul.Tensor", "inf")

    @pytest.mark.parametrize("kind", ["filled", "added", "where"])
    def test_a_row_that_is_masked_whole_breaks_in_the_softmax(self, kind: str) -> None:
        def attend(y: Tensor) -> Tensor:
            mask = torch.tensor([[True, True, True]])
            minus = torch.full((1, 3), -math.inf)
            masked = {
                "filled": y.masked_fill(mask, -math.inf),
                "added": y + minus,
                "where": torch.where(mask, minus, y),
            }
            return masked[kind].softmax(-1)

        one = broken(locate(Scaled(attend), torch.ones(2, 3), mean_square))
        assert (one.op, one.value) == ("aten._softmax.default", "nan")

    def test_a_division_that_where_drops_is_not_blamed_for_another_break(self) -> None:
        def dropped(y: Tensor) -> Tensor:
            with torch.no_grad():
                ratio = torch.where(y > 0, torch.zeros_like(y) / torch.zeros_like(y), y)
                ratio = torch.where(y > 0, y, ratio)
            return (y + ratio) * 3e38

        one = broken(locate(Scaled(dropped), torch.full((1, 3), 2.0), torch.sum))
        assert one.op == "aten.mul.Tensor"

    @pytest.mark.parametrize(
        ("inside", "op"),
        [(torch.log, "aten.log.default"), (lambda y: (y + 1) / y, "aten.div.Tensor")],
        ids=["log", "division"],
    )
    def test_what_where_drops_comes_back_as_a_gradient_and_is_the_origin(
        self, inside: Callable[[Tensor], Tensor], op: str
    ) -> None:
        found = locate(Scaled(lambda y: torch.where(y > 0, inside(y), y)), torch.tensor([[1.0, 0.0, 2.0]]), torch.sum)
        one = broken(found)
        assert (one.phase, one.op) == ("forward", op)
        assert found.loss == pytest.approx(found.loss)
        assert found.bad_gradients == ("fc.weight", "fc.bias")

    def test_a_causal_mask_among_the_buffers_is_as_it_should_be(self) -> None:
        model = Scaled(lambda y: (y + model.get_buffer("mask")).softmax(-1))
        model.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(3))
        found = locate(model, torch.randn(3, 3), mean_square)
        assert found.healthy
        assert found.bad_buffers == ()


def test_a_break_in_a_forward_hook_belongs_to_its_module() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 2)))
    model[1][0].register_forward_hook(lambda module, args, output: output / 0 * 0)  # pyright: ignore
    one = broken(locate(model, torch.ones(2, 3), mean_square))
    assert (one.module, one.module_type, one.op) == ("1.0", "ReLU", "aten.div.Tensor")


class TestBackward:
    def test_the_root_of_zero_breaks_on_the_way_back(self) -> None:
        found = locate(Scaled(torch.sqrt), torch.tensor([[1.0, 0.0, 4.0]]), torch.sum)
        one = broken(found)
        assert (one.phase, one.module, one.op) == ("backward", "", "aten.div.Tensor")
        assert one.forward_op == "aten.sqrt.default"
        assert one.forward_source.endswith(" in forward")
        assert (one.value, one.index, one.source, one.wide) == ("inf", (0, 1), "", "not finite")
        assert found.loss == 3.0

    def test_the_finite_gradients_next_to_the_broken_ones_bracket_the_break(self) -> None:
        class Steps(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.c = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

            def forward(self, x: Tensor) -> Tensor:
                return self.c((self.b(self.a(x)) * 0).sqrt())

        found = locate(Steps(), torch.ones(1, 2), torch.sum)
        assert found.bad_gradients == ("a.weight", "a.bias", "b.weight", "b.bias")
        assert found.good_gradients == ("c.weight",)

    def test_a_custom_function_is_named_by_its_own_line(self) -> None:
        class Wrong(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Tensor) -> Tensor:
                return x * 2

            @staticmethod
            def backward(ctx: Any, *grads: Tensor) -> Tensor:
                return grads[0] / 0

        model = nn.Sequential(nn.Linear(2, 2), Scaled(lambda y: cast("Tensor", Wrong.apply(y))), nn.Linear(3, 1))
        model[0] = nn.Linear(2, 3)
        one = broken(locate(model, torch.ones(1, 2), torch.sum))
        assert (one.phase, one.module, one.op) == ("backward", "1", "aten.div.Tensor")
        assert one.source.endswith(" in backward")
        assert (one.forward_op, one.forward_source.endswith(" in forward")) == ("aten.mul.Tensor", True)

    def test_a_hook_on_an_activation_belongs_to_the_layer_that_made_it(self) -> None:
        model = small()
        fired = []

        def fault(grad: Tensor) -> Tensor:
            fired.append(1)
            return grad * math.inf

        model[1].register_forward_hook(lambda module, args, output: output.register_hook(fault) and None)
        one = broken(locate(model, images(), mean_square))
        assert fired == [1]
        assert (one.phase, one.module, one.op) == ("backward", "1", "aten.mul.Tensor")
        assert one.source.endswith(" in fault")

    @pytest.mark.parametrize("pre", [False, True])
    def test_a_backward_hook_belongs_to_its_module(self, pre: bool) -> None:
        model = small()
        cast("Any", model[2]).inplace = False
        if pre:
            model[1].register_full_backward_pre_hook(lambda module, grads: tuple(g * math.nan for g in grads))
        else:
            model[1].register_full_backward_hook(lambda module, a, b: tuple(g * math.nan for g in a))
        one = broken(locate(model, images(), mean_square))
        assert (one.phase, one.module, one.op) == ("backward", "1", "aten.mul.Tensor")

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_a_checkpointed_layer_breaks_on_the_way_back(self, reentrant: bool) -> None:
        class Rooted(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return (x * 0).sqrt()

        class Network(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.c = nn.Linear(2, 2), Rooted(), nn.Linear(2, 2)

            def forward(self, x: Tensor) -> Tensor:
                return self.c(checkpoint(self.b, self.a(x), use_reentrant=reentrant))

        one = broken(locate(Network(), torch.ones(1, 2), torch.sum))
        assert (one.phase, one.module, one.op, one.forward_op) == (
            "backward",
            "b",
            "aten.div.Tensor",
            "aten.sqrt.default",
        )

    def test_gradients_that_overflow_when_they_are_added_belong_to_the_weight(self) -> None:
        """A weight used twice: both gradients are finite, their sum is not."""

        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.fc = nn.Linear(1, 1, bias=False)

            def forward(self, x: Tensor) -> Tensor:
                return self.fc(x) * 1e-3 + self.fc(x) * 1e-3

        with torch.no_grad():
            model = Twice()
            model.fc.weight.fill_(1e-3)
        found = locate(model, torch.full((1, 1), 3e38), lambda y: y.sum() * 1e3)
        assert found.bad_gradients == ("fc.weight",)
        assert broken(found).phase == "backward"


class TestOrigins:
    def test_a_parameter(self) -> None:
        model = small()
        with torch.no_grad():
            cast("Any", model[4]).weight[3, 7] = math.nan
        one = broken(locate(model, images(), mean_square))
        assert (one.module, one.op, one.origin) == ("4", "aten.addmm.default", "parameter 4.weight")
        assert [r.name for r in one.inputs if r.non_finite] == ["mat2"]

    @pytest.mark.parametrize("train", [True, False])
    def test_a_buffer(self, train: bool) -> None:
        model = small().train(train)
        cast("Any", model[1]).running_mean[2] = math.nan
        found = locate(model, images(), mean_square)
        one = broken(found)
        assert (one.module, one.origin) == ("1", "buffer 1.running_mean")
        assert found.bad_buffers == ("1.running_mean",)

    def test_an_input_by_its_argument(self) -> None:
        x = images()
        x[1, 2, 3, 4] = math.inf
        one = broken(locate(small(), x, mean_square))
        assert (one.module, one.op, one.origin, one.rows) == ("0", "aten.convolution.default", "input input", (1,))

    def test_an_input_by_its_key(self) -> None:
        class Network(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = small()

            def forward(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
                loss = self.net(batch["img"] / 2).square().mean()
                return loss, loss.detach()

        batch = {"img": images(), "more": {"weights": [torch.ones(2), torch.ones(2)]}}
        batch["img"][1, 2, 3, 4] = math.nan
        one = broken(locate(Network(), (batch,)))
        assert (one.module, one.op, one.origin) == ("", "aten.div.Tensor", "input img")

    def test_a_tensor_that_nobody_announced(self) -> None:
        weight = torch.tensor([1.0, math.nan, 1.0])
        one = broken(locate(Scaled(lambda y: y * weight), torch.ones(1, 3), torch.sum))
        assert (one.op, one.origin) == ("aten.mul.Tensor", "a tensor from outside, 3 float32")

    def test_a_number_in_the_code_is_no_tensor_from_outside(self) -> None:
        one = broken(locate(Scaled(lambda y: y * torch.tensor([1.0, math.nan, 1.0])), torch.ones(1, 3), torch.sum))
        assert (one.op, one.origin) == ("aten.mul.Tensor", "")

    def test_a_buffer_that_nothing_reads(self) -> None:
        model = small()
        model.register_buffer("spare", torch.tensor([1.0, math.nan]))
        found = locate(model, images(), mean_square)
        one = broken(found)
        assert (one.op, one.origin, found.bad_buffers) == ("", "buffer spare", ("spare",))

    def test_uninitialised_memory_is_not_blamed(self) -> None:
        def filled(y: Tensor) -> Tensor:
            memory = torch.empty_like(y)
            memory.fill_(math.nan)  # as memory may be that somebody else had
            again = y.new_empty(y.shape)
            again[:, :2], again[:, 2:] = y[:, :2], y[:, 2:]
            return again.log()

        one = broken(locate(Scaled(filled), torch.zeros(1, 3), torch.sum))
        assert one.op == "aten.log.default"


class TestWide:
    def test_a_device_that_computes_wrongly_is_told_by_float64(self) -> None:
        from torch.utils._python_dispatch import TorchDispatchMode

        class Faulty(TorchDispatchMode):
            fired = 0

            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                result = func(*args, **(kwargs or {}))
                if func is torch.ops.aten.addmm.default:
                    result[1, 2] = math.nan
                    Faulty.fired += 1
                return result

        with Faulty():
            one = broken(locate(small(), images(), mean_square))
        assert Faulty.fired
        assert (one.module, one.op, one.index, one.wide) == ("4", "aten.addmm.default", (1, 2), "finite")


class TestRunning:
    def test_two_breaks_that_do_not_depend_on_each_other_are_both_named(self) -> None:
        found = locate(Scaled(lambda y: y.log() + (y * 3e38).exp()), torch.tensor([[0.0, 1.0, 2.0]]), torch.sum)
        assert broken(found).op == "aten.log.default"
        assert [one.op for one in found.also] == ["aten.mul.Tensor"]

    def test_time_runs_out(self) -> None:
        found = locate(small(), images(), mean_square, seconds=0.0)
        assert found.truncated
        assert found.loss is None

    def test_what_is_known_when_time_runs_out_is_said(self) -> None:
        import time

        def slow(y: Tensor) -> Tensor:
            broken = y.log()
            time.sleep(0.3)
            return broken.exp().sum()

        found = locate(Scaled(lambda y: y), torch.zeros(1, 3), slow, seconds=0.25)
        assert found.truncated
        assert broken(found).op == "aten.log.default"

    def test_an_error_of_the_model_is_raised_when_nothing_broke_before(self) -> None:
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            locate(small(), torch.ones(2, 3, 9, 9), mean_square)

    def test_an_error_after_a_break_is_told_with_it(self) -> None:
        def refuse(y: Tensor) -> Tensor:
            if not bool(y.isfinite().all()):
                raise ValueError("the loss is NaN")
            return y.sum()

        found = locate(Scaled(torch.log), torch.zeros(1, 3), refuse)
        assert broken(found).op == "aten.log.default"
        assert found.error == "ValueError: the loss is NaN"

    def test_the_second_run_stops_at_the_break_with_the_variables_of_its_code(self) -> None:
        seen: list[tuple[Break, dict[str, Any]]] = []

        def inner(y: Tensor) -> Tensor:
            local = y * 0
            return local.log()

        found = locate(
            Scaled(inner), torch.ones(1, 3), torch.sum, on_break=lambda one, names: seen.append((one, names))
        )
        ((one, names),) = seen
        assert one == found.first
        assert torch.equal(names["local"], torch.zeros(1, 3))
        assert names["op_result"].tolist() == [[-math.inf] * 3]
        assert names["op_args"][0].tolist() == [[0.0] * 3]

    def test_the_second_run_stops_within_the_backward_pass(self) -> None:
        seen: list[dict[str, Any]] = []
        model = Scaled(torch.sqrt)
        found = locate(model, torch.zeros(1, 3), torch.sum, on_break=lambda one, names: seen.append(names))
        assert broken(found).phase == "backward"
        assert [names["op_result"].tolist() for names in seen] == [[[math.inf] * 3]]
        assert not torch.nn.modules.module._has_any_global_hook()

    def test_a_pass_can_be_stopped_at_any_operation(self) -> None:
        found = locate_call(Scaled(torch.log), lambda: torch.zeros(1, 3).log().sum(), stop_at=1)
        assert (found.operations, found.truncated, found.healthy) == (1, True, False)

    def test_frames_end_at_the_module_that_broke(self) -> None:
        model = small()
        nn.init.constant_(cast("Any", model[4]).weight, 3e38)
        found = locate(model, images() + 9, mean_square, frames=3)
        assert [(f.module, f.module_type) for f in found.frames] == [("2", "SiLU"), ("3", "Flatten"), ("4", "Linear")]
        assert broken(found).ordinal == broken(locate(model, images() + 9, mean_square)).ordinal

    def test_items_that_are_plain_numbers(self) -> None:
        model = Scaled(lambda y: y)

        def call() -> tuple[Tensor, dict[str, float]]:
            y = model(torch.ones(1, 3))
            return y.sum(), {"fine": 1.0, "bad": float((y.detach() * 0).log().sum())}

        found = locate_call(model, call)
        assert broken(found).op == "aten.log.default"
        assert found.items == {"fine": 1.0, "bad": -math.inf}

    def test_a_compiled_model_runs_plainly(self) -> None:
        model = Scaled(torch.log)
        compiled = cast("nn.Module", torch.compile(model, backend="eager"))
        assert broken(locate(compiled, torch.zeros(1, 3), torch.sum)).op == "aten.log.default"

    def test_a_tensor_of_a_kind_of_its_own_does_no_harm(self) -> None:
        class Own(Tensor):
            pass

        x = torch.zeros(1, 3).as_subclass(Own)
        assert locate(Scaled(lambda y: y + x), torch.ones(1, 3), mean_square).healthy

    def test_it_can_be_called_in_inference_mode(self) -> None:
        model, x = Scaled(torch.sqrt), torch.ones(1, 3)
        with torch.inference_mode():
            found = locate(model, x, torch.sum)
        assert found.healthy

    def test_it_can_be_called_without_gradients(self) -> None:
        with torch.no_grad():
            found = locate(Scaled(torch.sqrt), torch.zeros(1, 3), torch.sum)
        assert broken(found).phase == "backward"


def test_the_module_and_operation_are_exact_wherever_a_fault_is() -> None:
    """Some hundred faults in small random networks: what is multiplied by infinity is known by construction."""
    exact, total, absorbed, wrong = 0, 0, 0, []
    for seed in range(240):
        dice = random.Random(seed)
        torch.manual_seed(seed)
        model, x = _network(dice)
        leaves = [(n, m) for n, m in model.named_modules() if n and not list(m.children())]
        name, module = dice.choice(leaves)
        backward = dice.random() < 0.5
        op, fired = _break(module, backward, dice)
        found = locate(model, x, mean_square)
        assert fired, f"seed {seed}: the fault did not fire"
        if found.healthy:
            absorbed += 1  # -Inf before a ReLU does no harm, neither forward nor backward
            assert not backward
            loss = mean_square(model(x))
            loss.backward()
            assert all(
                bool(t.isfinite().all()) for t in [loss, *(p.grad for p in model.parameters() if p.grad is not None)]
            )
            continue
        total += 1
        one = found.first
        if one and (one.module, one.op, one.phase) == (name, op, "backward" if backward else "forward"):
            exact += 1
        else:
            wrong.append((seed, name, type(module).__name__, backward, op, one and (one.module, one.op, one.phase)))
    assert exact == total, wrong
    assert absorbed < 12 < 220 < total


def _network(dice: random.Random) -> tuple[nn.Module, Tensor]:
    width = dice.choice([2, 4])
    if dice.random() < 0.5:
        layers: list[nn.Module] = []
        for _ in range(dice.randint(2, 4)):
            layers += [nn.Linear(width, width), dice.choice([nn.ReLU(inplace=True), nn.Tanh(), nn.SiLU(), nn.GELU()])]
            if dice.random() < 0.4:
                layers.append(dice.choice([nn.LayerNorm(width), nn.BatchNorm1d(width), nn.Dropout(0.2)]))
        return nn.Sequential(*layers, nn.Linear(width, 2)), torch.randn(5, width)
    layers = [nn.Conv2d(3, width, 3, padding=1)]
    for _ in range(dice.randint(1, 3)):
        block = [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.SiLU(inplace=True)]
        layers += [nn.Sequential(*block), dice.choice([nn.MaxPool2d(2, ceil_mode=True), nn.Identity(), nn.Upsample(9)])]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2)), torch.randn(2, 3, 8, 8)


class _WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, fired: list[int], value: float) -> Tensor:
        ctx.fired, ctx.value = fired, value
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        ctx.fired.append(1)
        return grads[0].add(ctx.value), None, None


def _break(module: nn.Module, backward: bool, dice: random.Random) -> tuple[str, list[int]]:
    """Patch a module so that its output, or the gradient of it, is broken by a known operation."""
    forward, fired = module.forward, []
    value = dice.choice([math.nan, math.inf, -math.inf])
    where = dice.choice(["all", "one"])

    def patched(*args: Any) -> Tensor:
        output = forward(*args)
        if backward:
            return cast("Tensor", _WrongGradient.apply(output, fired, value))
        fired.append(1)
        if where == "all":
            return output.add(value)
        output = output.clone()
        output.view(-1)[dice.randrange(output.numel())].fill_(value)
        return output

    module.forward = patched
    return "aten.add.Tensor" if backward or where == "all" else "aten.fill_.Scalar", fired
