"""Studies of a model by itself, or of what its maps say: one file each."""

from wordlight.comparisons.studies.entanglement import Entanglement
from wordlight.comparisons.studies.faithfulness import Faithfulness
from wordlight.comparisons.studies.following import Following
from wordlight.comparisons.studies.influence import Influence
from wordlight.comparisons.studies.layers import Layers
from wordlight.comparisons.studies.parity import ParityOptions
from wordlight.comparisons.studies.positions import Positions
from wordlight.comparisons.studies.relations import Relations
from wordlight.comparisons.studies.sanity import Sanity

#: In the order in which the command line lists them.
STUDIES = (
    Following,
    Sanity,
    Layers,
    Positions,
    Influence,
    Relations,
    Entanglement,
    ParityOptions,
    Faithfulness,
)
