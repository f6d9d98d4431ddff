from tests.processes import python

# A separate process, because logical CPUs must be set before TensorFlow starts.
PROGRAM = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from ssd_keras.losses import MultiBoxLoss
from ssd_keras.model import ssd_vgg16
from ssd_keras.training.optimizer import CaffeSGD
from tests.tiny import TINY

rng = np.random.default_rng(0)
images = rng.uniform(0, 255, (4, 64, 64, 3)).astype("float32")
truth = np.zeros((4, 2, 5), "float32")  # the replicas get 3 and 1 objects
truth[:, 0] = [0.1, 0.1, 0.6, 0.6, 1]
truth[0, 1] = [0.5, 0.5, 0.9, 0.9, 2]
truth[3, 0] = 0

def train(strategy):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = ssd_vgg16(TINY, 2, width=1 / 16)
        optimizer = CaffeSGD(1e-3, l2=0.1)
        model.compile(optimizer, MultiBoxLoss(TINY), jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices((images, truth)).batch(4)
    history = model.fit(data, epochs=2, verbose=0, shuffle=False).history
    assert float(optimizer.gradient_norm.numpy()) > 0
    return model, history

one, one_history = train(tf.distribute.get_strategy())
two, two_history = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
for a, b in zip(one.variables, two.variables):
    np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5, err_msg=a.path)
    first, second = b.value.values
    np.testing.assert_array_equal(first.numpy(), second.numpy(), err_msg=a.path)
np.testing.assert_allclose(one_history["loss"], two_history["loss"], rtol=1e-4)
"""


def test_two_replicas_train_as_one_device_does():
    done = python(PROGRAM)
    assert done.returncode == 0, done.stderr[-3000:]
