from wanc.api import BuildResult as BuildResult
from wanc.api import Limits as Limits
from wanc.api import Quota as Quota
from wanc.api import VariantsError as VariantsError
from wanc.api import build as build
from wanc.api import build_variants as build_variants
from wanc.api import open as open
from wanc.api import open_graph as open_graph
from wanc.api import open_service as open_service

__version__: str
