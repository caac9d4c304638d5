"""The dashboards, from top to bottom of what somebody asks who was woken up."""

from monitoring.dashboards.balancing import BALANCING
from monitoring.dashboards.board import Board
from monitoring.dashboards.load import LOAD
from monitoring.dashboards.postgres import POSTGRES
from monitoring.dashboards.service import SERVICE
from monitoring.dashboards.shop import SHOP

BOARDS: tuple[Board, ...] = (SHOP, SERVICE, BALANCING, POSTGRES, LOAD)
