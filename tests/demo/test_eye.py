import numpy as np

from medssl.demo import eye
from tests.demo import generators


def test_nothing_fine_is_seen_through_a_cataract():
    def detail(image, where):
        green = image[..., 1]
        return np.abs(np.diff(green, axis=1))[where[:, 1:] & where[:, :-1]].mean()

    shares = []
    for seed in range(10):
        image, mask = eye.draw("cataract", *generators(seed))
        clear = (image.max(-1) > 0.15) & ~mask
        shares.append(detail(image, mask) / detail(image, clear))
    assert np.median(shares) < 0.9


def test_the_cup_is_larger_in_glaucoma():
    # Same eyes, same generators: only the label differs.
    for seed in range(6):
        (cupped, disc), (healthy, _) = (eye.draw(label, *generators(seed)) for label in ("glaucoma", "normal"))
        assert np.abs(cupped - healthy)[disc].mean() > 3 * np.abs(cupped - healthy)[~disc].mean()


def test_lesions_of_retinopathy_lie_off_the_disc_and_are_many():
    from scipy.ndimage import label as components

    for seed in range(6):
        _, mask = eye.draw("diabetic_retinopathy", *generators(seed))
        assert components(mask)[1] >= 5
