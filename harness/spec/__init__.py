"""What a trial is: sites, placements, the recipe and the identity of their combination.

What other packages use stands here: `from harness.spec import Recipe, TrialSpec`. Owns: this
vocabulary. Must not know: how anything is trained, stored or searched.
"""

from harness.spec.base import Added as Added
from harness.spec.base import Count as Count
from harness.spec.base import Frozen as Frozen
from harness.spec.base import Seed as Seed
from harness.spec.base import explain as explain
from harness.spec.base import identity as identity
from harness.spec.base import leaves as leaves
from harness.spec.base import read_as as read_as
from harness.spec.base import validated as validated
from harness.spec.recipe import RECIPES as RECIPES
from harness.spec.recipe import Recipe as Recipe
from harness.spec.request import CHANGEABLE as CHANGEABLE
from harness.spec.request import ChangeRequest as ChangeRequest
from harness.spec.request import TrialRequest as TrialRequest
from harness.spec.sites import LINEAR_POSITIONS as LINEAR_POSITIONS
from harness.spec.sites import MAP_POSITIONS as MAP_POSITIONS
from harness.spec.sites import POSITIONS as POSITIONS
from harness.spec.sites import SUB_BLOCK_POSITIONS as SUB_BLOCK_POSITIONS
from harness.spec.sites import Placement as Placement
from harness.spec.sites import Position as Position
from harness.spec.sites import Site as Site
from harness.spec.sites import parse_depth as parse_depth
from harness.spec.trial import SEMANTICS as SEMANTICS
from harness.spec.trial import BackboneSpec as BackboneSpec
from harness.spec.trial import Change as Change
from harness.spec.trial import DataSpec as DataSpec
from harness.spec.trial import TrialSpec as TrialSpec
from harness.spec.trial import WeightDtype as WeightDtype
