from gristmill.objectives.masked import Masked
from tests.objectives.suite import check_objective, modernbert_config
import dataclasses, pytest
@pytest.mark.parametrize("o", [Masked(), Masked(rate=0.15, unit="word"), Masked(unit="span", entities=("God", "the heaven"))])
def test_s(o):
    check_objective(o, hiding=dataclasses.replace(o, random_share=1-o.mask_share))
def test_m():
    check_objective(Masked(), modernbert_config(), hiding=Masked(mask_share=1.0, random_share=0.0))
