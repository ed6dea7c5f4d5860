# %% [markdown]
# # 4. LoRA by hand, then kft's
#
# A model is trained, and the world changes a little. To train all of its weights again costs
# memory, and with few data it forgets what it knew. Low-rank adaptation (Hu et al. 2021) keeps
# the matrix $W$ as it is and adds the product of two thin ones:
#
# $$y = x W + s\,(x A)\,B, \qquad s = \alpha / r, \quad A: I \times r, \quad B: r \times O .$$
#
# You write this layer in thirty lines, derive its gradient and check it, find the rank that a
# change needs, and then do the same with kft to a protein language model.
#
# **You learn**: a Keras layer with weights of its own; the gradient of a product of matrices;
# what rank means; why $B$ begins with zeros and $A$ must not. **kft helps**: `kft.add_lora` puts
# such layers into any model, `kft.parameters` counts, `kft.merge_lora` adds $s A B$ to $W$.
#
# Run the first cell. `DATA.md` says what the data are, `CHECK.md` what gives points and how to check your work.
# Replace each `...` under a `# TODO`. `help(kft.fit)` shows how `kft.fit` is called.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np

import kft
from kft import course

data = course.data()
keras.utils.set_random_seed(0)

# %% [markdown]
# ## The layer
#
# `LoRADense(dense, rank, alpha)` gets a `Dense` layer that has its weights already. It must not
# train them. `a` begins with small random numbers and `b` with zeros, so at first nothing
# changes. In `call` never compute $A B$: $(x A) B$ is $r (I + O)$ multiplications for each
# record, not $I O$.


# %%
class LoRADense(keras.layers.Layer):
    """x W + b + s (x A) B, with W and the bias b of a `Dense` layer that stays as it is."""

    def __init__(self, dense, rank, alpha=8):
        super().__init__()
        # TODO: `self.dense`, frozen; `self.rank`; `self.scale`, which is s
        self.dense = dense
        self.dense.trainable = False
        self.rank = rank
        self.scale = alpha / rank

    def build(self, shape):
        # TODO: `self.a` of shape (I, r) and `self.b` of shape (r, O), by `self.add_weight`
        inputs, outputs = self.dense.kernel.shape
        self.a = self.add_weight((inputs, self.rank), "glorot_uniform", name="a")
        self.b = self.add_weight((self.rank, outputs), "zeros", name="b")

    def call(self, x):
        # TODO: the formula, with `keras.ops.matmul`
        update = keras.ops.matmul(keras.ops.matmul(x, self.a), self.b)
        return self.dense(x) + self.scale * update

    def merged(self):
        """Return W + s A B, a numpy array (I, O)."""
        # TODO: weights become arrays by `keras.ops.convert_to_numpy`
        w, a, b = map(keras.ops.convert_to_numpy, (self.dense.kernel, self.a, self.b))
        return w + self.scale * a @ b


# %% [markdown]
# ## The gradient
#
# Let $G$ be the gradient of a loss in the layer's outputs, one row for each record. Derive the
# gradients of the loss in $A$ and in $B$ on paper, then write them with numpy. What are they when
# $B = 0$? And if $A$ were zero, too?


# %%
def lora_gradients(x, a, b, scale, upstream):
    """Return the gradients in A (I, r) and B (r, O).

    `x` has shape (N, I), `upstream` is G of shape (N, O). All are numpy arrays.
    """
    # TODO: two arrays
    in_a = scale * x.T @ (upstream @ b.T)
    in_b = scale * (x @ a).T @ upstream
    return in_a, in_b


# %% [markdown]
# ## How many ranks does the repair need?
#
# `train(rank)` adapts the old matrix of the instrument to the new measurements. Train with ranks
# 1 to 6 and compute the mean squared error on the *test* records. The old matrix alone has the
# error that is printed first. Noise of 0.1 in each quantity leaves an error of 0.01.

# %%
RANKS = [1, 2, 3, 4, 5, 6]


def train(rank):
    """Return a `LoRADense` that was trained on the training records."""
    dense = keras.layers.Dense(8, use_bias=False)
    dense.build((None, 12))
    dense.kernel.assign(data["kernel"])
    layer = LoRADense(dense, rank)
    model = keras.Sequential([keras.Input((12,)), layer])
    rate = keras.optimizers.schedules.CosineDecay(0.03, 240)
    model.compile(keras.optimizers.Adam(rate), "mean_squared_error")
    model.fit(data["train_x"], data["train_y"], batch_size=64, epochs=60, verbose=0)
    return layer


def error(kernel):
    """Return the mean squared error of a matrix on the test records."""
    return float(np.mean((data["test_x"] @ kernel - data["test_y"]) ** 2))


print(f"old matrix: {error(data['kernel']):.3f}")
# TODO: {rank: trained layer} of all RANKS
layers = {rank: train(rank) for rank in RANKS}
# TODO: {rank: error on the test records}
errors = {rank: error(layer.merged()) for rank, layer in layers.items()}
# TODO: the smallest rank whose error is at most 1.2 times the smallest of all
rank_needed = min(rank for rank in RANKS if errors[rank] <= 1.2 * min(errors.values()))

# %%
plt.semilogy(RANKS, [errors[rank] for rank in RANKS], "o-")
plt.xlabel("rank")
plt.ylabel("mean squared error, test")
plt.show()

# %% [markdown]
# ## The same in a protein language model
#
# `kft.add_lora` changes the query and value layers of each block into layers like yours, and
# freezes all but these and the head. How many numbers does that train?

# %%
model = kft.Model(kft.load("kft_esm2_tiny"), kft.heads.Regression())
# TODO: add LoRA of rank 4 with alpha 8; `kft.add_lora` returns the paths of the layers
paths = kft.add_lora(model, rank=4, alpha=8)


def lora_parameters(inputs, outputs, rank):
    """Return how many numbers LoRA trains in a layer with I inputs and O outputs."""
    # TODO: a number
    return rank * (inputs + outputs)


kernels = [kft.params.layers(model)[path].kernel.shape for path in paths]
head = 320 + 1
print("by the formula:", sum(lora_parameters(*shape, 4) for shape in kernels) + head)
print(table := kft.parameters(model))
# TODO: the share of all parameters that are trained, from `table`
share = table.trainable / table.total

# %% [markdown]
# ## Is it the same formula?
#
# A layer of kft holds its adapters by name: `dense.adapters["default"]` has `a`, `b` and
# `settings.scale`. Compute by hand, in numpy, what the layer answers.


# %%
def by_hand(dense, x):
    """Return the outputs (N, O) of a `Dense` layer with an adapter of kft, for x (N, I)."""
    # TODO: x W + bias + s (x A) B
    adapter = dense.adapters["default"]
    w, bias, a, b = map(
        keras.ops.convert_to_numpy, (dense.kernel, dense.bias, adapter.a, adapter.b)
    )
    return x @ w + bias + adapter.settings.scale * (x @ a) @ b


# %% [markdown]
# ## Train, merge, take apart
#
# Train the adapter and the head to predict the charge of each peptide. Then merge: the
# predictions (`kft.predict(model, inputs)`) must not change, and the layer costs no more than
# before. Take it apart again at the end (`kft.unmerge_lora`), so that the base has its old weights.

# %%
done = kft.fit(model, (data["peptides"], data["charges"]), epochs=20, learning_rate=3e-3, verbose=0)
# TODO: predictions of `data["peptides"]` before merging
before = kft.predict(model, data["peptides"])
kft.merge_lora(model)
# TODO: and after
after = kft.predict(model, data["peptides"])
kft.unmerge_lora(model)
print(f"largest difference: {np.abs(after - before).max():.1e}")
print(f"mean squared error: {np.mean((before[:, 0] - data['charges']) ** 2):.4f}, ", end="")
print(f"of the mean {np.var(data['charges']):.4f}")

# %% [markdown]
# ## A caption
#
# Write a caption of your plot of error against rank: **what** is shown, **how** it was made
# (number of training records), and what stands out (**wow**): the rank that is needed, the error
# there, and the error of the old matrix. Compute the numbers; do not type them.

# %%
# TODO: a text in three parts, `What: ... How: ... Wow: ...`
caption = (
    f"What: mean squared error on {len(data['test_x'])} test records against the rank of the "
    f"correction of a matrix of 12 by 8. How: for each rank, A and B were trained on "
    f"{len(data['train_x'])} records measured after the repair, and W stayed as it was. Wow: rank "
    f"{rank_needed} is enough, with an error of {errors[rank_needed]:.4f}, where the old matrix has "
    f"{error(data['kernel']):.3f}; more ranks bring no more."
)
