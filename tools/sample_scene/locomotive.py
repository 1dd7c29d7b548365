"""The object of the sample scene: a toy steam locomotive, as distances and colours.

A shape is a signed distance: a function of x, y, z that is negative inside and never changes faster than the
point moves (so `max` cuts and `min` joins shapes). `PARTS` lists shapes with their materials. Points and vectors
are arrays 3 n (or unpacked into x, y, z), float32, in the model's own units: x forward, y left, z up.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# ---------------------------------------------------------------- distances to simple shapes


def box(x, y, z, hx, hy, hz, rounding=0.0):
    """A box of half sizes hx, hy, hz around 0, its edges rounded."""
    x, y, z = np.abs(x) - (hx - rounding), np.abs(y) - (hy - rounding), np.abs(z) - (hz - rounding)
    outside = np.sqrt(np.maximum(x, 0) ** 2 + np.maximum(y, 0) ** 2 + np.maximum(z, 0) ** 2)
    return outside + np.minimum(np.maximum(np.maximum(x, y), z), 0) - rounding


def rectangle(u, v, hu, hv, rounding=0.0):
    """The same in two dimensions: a bar without ends."""
    u, v = np.abs(u) - (hu - rounding), np.abs(v) - (hv - rounding)
    outside = np.sqrt(np.maximum(u, 0) ** 2 + np.maximum(v, 0) ** 2)
    return outside + np.minimum(np.maximum(u, v), 0) - rounding


def cylinder(u, v, along, radius, half):
    """A solid cylinder around the axis u = v = 0."""
    return rectangle(np.hypot(u, v), along, radius, half)


def ring(u, v, along, radius, thick, half):
    """A cylinder's wall: the middle of the wall at `radius`, half as thick as `thick`."""
    return rectangle(np.hypot(u, v) - radius, along, thick, half)


def cone(u, v, along, r0, r1, half):
    """A cone's frustum around an axis: radius r0 at -half, r1 at +half."""
    slope = (r1 - r0) / (2 * half)
    wall = (np.hypot(u, v) - 0.5 * (r0 + r1) - slope * along) / math.hypot(1.0, slope)
    return np.maximum(wall, np.abs(along) - half)


def capsule(x, y, z, start, end, radius):
    """A rod with round ends."""
    (ax, ay, az), (dx, dy, dz) = start, np.subtract(end, start).tolist()
    x, y, z = x - ax, y - ay, z - az
    t = np.clip((x * dx + y * dy + z * dz) / (dx * dx + dy * dy + dz * dz), 0, 1)
    return np.sqrt((x - t * dx) ** 2 + (y - t * dy) ** 2 + (z - t * dz) ** 2) - radius


def sphere(x, y, z, radius):
    return np.sqrt(x * x + y * y + z * z) - radius


def repeat(u, spacing, first, last):
    """Distance of u from the nearest of `first`, ..., `last` times `spacing`: copies of a shape in a row."""
    return u - spacing * np.clip(np.round(u / spacing), first, last)


# ---------------------------------------------------------------- the locomotive

BOILER_Z, RUNNING_BOARD_Z = 0.14, -0.15
DRIVER_X, DRIVER_Z, DRIVER_RADIUS = (-0.37, 0.25), -0.32, 0.235  # wheels at -0.37 +- 0.25
LEADER_X, LEADER_Z, LEADER_RADIUS = (0.53, 0.17), -0.415, 0.14
CHIMNEY_X, LAMP_X, LAMP_Z = 0.55, 0.83, 0.55
CAB_X, ROOF_RADIUS, ROOF_AXIS_Z = -0.67, 0.75, -0.03


def ground(x, y, z):
    return np.maximum(rectangle(x, y, 1.2, 0.62, 0.3), np.abs(z + 0.795) - 0.055)


def ballast(x, y, z):
    slope = 0.8 * (np.maximum(np.abs(x) - 1.05, np.abs(y) - 0.44) + 0.5 * (z + 0.7))
    return np.maximum(slope, np.abs(z + 0.715) - 0.035)


def sleepers(x, y, z):
    return box(repeat(x, 0.19, -5, 5), y, z + 0.665, 0.05, 0.42, 0.035, 0.01)


def rails(x, y, z):
    y = np.abs(y) - 0.27
    return np.minimum(box(x, y, z + 0.572, 1.12, 0.028, 0.017, 0.005), box(x, y, z + 0.605, 1.12, 0.014, 0.035))


def spokes(x, y, z, radius, n):
    """A wheel without its tyre, around the y axis."""
    rho, angle, sector = np.hypot(x, z), np.arctan2(z, x), 2 * np.pi / n
    angle = angle - sector * np.round(angle / sector)
    bars = box(rho * np.cos(angle) - radius / 2, rho * np.sin(angle), y, radius / 2, 0.015, 0.018)
    hub = rectangle(rho, y, 0.05, 0.045, 0.01)
    return np.minimum(np.minimum(bars, hub), rectangle(rho - (radius - 0.035), y, 0.016, 0.028))


def wheels(x, y, z):
    y = np.abs(y) - 0.27
    x_driver, x_leader = np.abs(x - DRIVER_X[0]) - DRIVER_X[1], np.abs(x - LEADER_X[0]) - LEADER_X[1]
    drivers = spokes(x_driver, y, z - DRIVER_Z, DRIVER_RADIUS, 10)
    return np.minimum(drivers, spokes(x_leader, y, z - LEADER_Z, LEADER_RADIUS, 6))


def tyres(x, y, z):
    y = np.abs(y) - 0.27
    x_driver, x_leader = np.abs(x - DRIVER_X[0]) - DRIVER_X[1], np.abs(x - LEADER_X[0]) - LEADER_X[1]
    drivers = ring(x_driver, z - DRIVER_Z, y, DRIVER_RADIUS - 0.012, 0.012, 0.036)
    return np.minimum(drivers, ring(x_leader, z - LEADER_Z, y, LEADER_RADIUS - 0.012, 0.012, 0.036))


def rods(x, y, z):
    """Coupling rod, connecting rod, piston rod and the pins on the wheels."""
    y, pin_z = np.abs(y), DRIVER_Z - 0.1
    pins = cylinder(np.abs(x - DRIVER_X[0]) - DRIVER_X[1], z - pin_z, y - 0.36, 0.03, 0.07)
    coupling = box(x - DRIVER_X[0], y - 0.36, z - pin_z, 0.28, 0.012, 0.024)
    connecting = capsule(x, y, z, (-0.12, 0.41, pin_z), (0.26, 0.41, -0.33), 0.022)
    piston = capsule(x, y, z, (0.2, 0.41, -0.33), (0.42, 0.41, -0.33), 0.018)
    return np.minimum(np.minimum(pins, coupling), np.minimum(connecting, piston))


def frame(x, y, z):
    """What carries everything: the beams between the wheels and the axles."""
    axle_x = np.abs(x - DRIVER_X[0]) - DRIVER_X[1]
    beams = box(x + 0.1, np.abs(y) - 0.17, z + 0.25, 0.93, 0.03, 0.08)
    axles = cylinder(axle_x, z - DRIVER_Z, y, 0.03, 0.27)
    axle_x = np.abs(x - LEADER_X[0]) - LEADER_X[1]
    return np.minimum(np.minimum(beams, axles), cylinder(axle_x, z - LEADER_Z, y, 0.025, 0.27))


def saddle(x, y, z):
    """The smokebox's seat, and steps up to the cab."""
    y = np.abs(y)
    seat = box(x - 0.56, y, z + 0.18, 0.14, 0.2, 0.14)
    hangers = box(np.abs(x - CAB_X) - 0.1, y - 0.43, z + 0.29, 0.012, 0.02, 0.15)
    steps = box(x - CAB_X, y - 0.45, repeat(z + 0.42, 0.11, 0, 1), 0.11, 0.045, 0.012)
    return np.minimum(seat, np.minimum(hangers, steps))


def running_board(x, y, z):
    return box(x + 0.1, y, z - RUNNING_BOARD_Z, 0.96, 0.44, 0.022, 0.01)


def splashers(x, y, z):
    """Hoods over the driving wheels, which stand higher than the running board."""
    disc = cylinder(np.abs(x - DRIVER_X[0]) - DRIVER_X[1], z - DRIVER_Z, np.abs(y) - 0.29, 0.285, 0.06)
    return np.maximum(disc, RUNNING_BOARD_Z - z)


def buffer_beam(x, y, z):
    return box(x - 0.84, y, z + 0.23, 0.035, 0.44, 0.07, 0.015)


def cowcatcher(x, y, z):
    """Slats that fan out from the buffer beam to a V above the rails."""
    y = np.abs(y)
    distance = capsule(x, y, z, (1.155, 0, -0.54), (0.945, 0.325, -0.54), 0.024)
    for k in range(5):
        foot = (1.15 - 0.05 * k, 0.08 * k, -0.535)
        distance = np.minimum(distance, capsule(x, y, z, (0.86, 0.07 * k, -0.27), foot, 0.018))
    return distance


def boiler(x, y, z):
    return cylinder(y, z - BOILER_Z, x - 0.02, 0.27, 0.45)


def boiler_bands(x, y, z):
    return ring(y, z - BOILER_Z, repeat(x + 0.1, 0.23, 0, 2), 0.27, 0.013, 0.018)


def smokebox(x, y, z):
    barrel = cylinder(y, z - BOILER_Z, x - 0.62, 0.285, 0.17)
    door = np.maximum(sphere(x - 0.43, y, z - BOILER_Z, 0.43), 0.74 - x)
    door = np.maximum(door, np.hypot(y, z - BOILER_Z) - 0.2)
    return np.minimum(np.minimum(barrel, door), box(x - 0.77, y, z - 0.44, 0.06, 0.04, 0.06))


def smokebox_fittings(x, y, z):
    """A ring around the door, its handle, and a number plate."""
    around = ring(y, z - BOILER_Z, x - 0.795, 0.262, 0.014, 0.012)
    handle = capsule(x, y, z, (0.875, -0.07, BOILER_Z - 0.07), (0.875, 0.07, BOILER_Z + 0.07), 0.014)
    return np.minimum(np.minimum(around, handle), sphere(x - 0.87, y, z - BOILER_Z, 0.035))


def chimney(x, y, z):
    """A balloon stack: a stem, a cone that widens, a cone that narrows, and a hole down the middle."""
    x = x - CHIMNEY_X
    stem = np.minimum(cone(x, y, z - 0.44, 0.13, 0.085, 0.04), cylinder(x, y, z - 0.5, 0.08, 0.1))
    widening, narrowing = cone(x, y, z - 0.68, 0.08, 0.19, 0.09), cone(x, y, z - 0.82, 0.19, 0.14, 0.05)
    stack = np.minimum(stem, np.minimum(widening, narrowing))
    return np.maximum(stack, -cylinder(x, y, z - 0.87, 0.11, 0.14))


def chimney_bands(x, y, z):
    x = x - CHIMNEY_X
    return np.minimum(ring(x, y, z - 0.77, 0.19, 0.013, 0.014), ring(x, y, z - 0.872, 0.128, 0.022, 0.012))


def steam_dome(x, y, z):
    x = x + 0.1
    body = np.minimum(cylinder(x, y, z - 0.46, 0.125, 0.08), sphere(x, y, (z - 0.54) * 1.0, 0.125))
    return np.minimum(np.minimum(body, cone(x, y, z - 0.4, 0.17, 0.125, 0.02)), sphere(x, y, z - 0.675, 0.028))


def sand_dome(x, y, z):
    x = x - 0.34
    return np.minimum(cylinder(x, y, z - 0.43, 0.095, 0.07), np.maximum(sphere(x, y, z - 0.45, 0.11), 0.47 - z))


def bell(x, y, z):
    """A bell in its yoke, between the domes."""
    x = x - 0.13
    arch = np.hypot(np.hypot(y, np.maximum(z - 0.53, 0)) - 0.085, x) - 0.014
    arch = np.maximum(arch, 0.38 - z)
    cup = np.minimum(cone(x, y, z - 0.485, 0.06, 0.032, 0.04), sphere(x, y, z - 0.53, 0.034))
    return np.minimum(arch, np.minimum(cup, cone(x, y, z - 0.45, 0.072, 0.055, 0.012)))


def headlamp(x, y, z):
    x, z = x - LAMP_X, z - LAMP_Z
    return np.minimum(box(x, y, z, 0.075, 0.08, 0.085, 0.01), cone(x, y, z - 0.11, 0.085, 0.03, 0.03))


def lens(x, y, z):
    return cylinder(y, z - LAMP_Z, x - LAMP_X - 0.08, 0.058, 0.012)


def lens_rim(x, y, z):
    """The rim of the headlamp's lens, and the knob on its roof."""
    knob = sphere(x - LAMP_X, y, z - LAMP_Z - 0.15, 0.028)
    return np.minimum(ring(y, z - LAMP_Z, x - LAMP_X - 0.085, 0.066, 0.013, 0.02), knob)


def handrails(x, y, z):
    """A rail along each side of the boiler on posts, and one at each cab door."""
    y = np.abs(y)
    rail = capsule(x, y, z, (-0.3, 0.325, 0.22), (0.74, 0.325, 0.22), 0.014)
    posts = capsule(repeat(x - 0.22, 0.26, -2, 2), y, z, (0, 0.24, 0.22), (0, 0.325, 0.22), 0.014)
    grips = capsule(np.abs(x - CAB_X) - 0.32, y, z, (0, 0.425, -0.06), (0, 0.425, 0.2), 0.012)
    return np.minimum(rail, np.minimum(posts, grips))


def cylinders(x, y, z):
    """The steam cylinders, and their valve chests under the running board."""
    y = np.abs(y)
    chest = box(x - 0.55, y - 0.37, z + 0.22, 0.1, 0.06, 0.06)
    return np.minimum(cylinder(y - 0.42, z + 0.33, x - 0.55, 0.1, 0.12), chest)


def cylinder_caps(x, y, z):
    y = np.abs(y) - 0.42
    return np.minimum(
        cylinder(y, z + 0.33, np.abs(x - 0.55) - 0.12, 0.108, 0.016), cylinder(y, z + 0.33, x - 0.68, 0.04, 0.03)
    )


def windows(x, y, z):
    """The holes in the cab's walls: two in each side, two in front, one behind."""
    sides = rectangle(np.abs(x - CAB_X) - 0.135, z - 0.36, 0.1, 0.125, 0.03)
    front = np.maximum(rectangle(np.abs(y) - 0.255, z - 0.47, 0.08, 0.075, 0.03), CAB_X - x)
    back = np.maximum(rectangle(y, z - 0.37, 0.2, 0.13, 0.05), x - CAB_X)
    return np.minimum(np.maximum(sides, 0.3 - np.abs(y)), np.minimum(front, back))


def cab(x, y, z):
    outer = np.maximum(box(x - CAB_X, y, z - 0.3, 0.3, 0.41, 0.45), np.hypot(y, z - ROOF_AXIS_Z) - ROOF_RADIUS)
    walls = np.maximum(outer, -box(x - CAB_X, y, z - 0.36, 0.272, 0.382, 0.47))
    return np.maximum(walls, -windows(x, y, z))


def roof(x, y, z):
    shell = np.abs(np.hypot(y, z - ROOF_AXIS_Z) - ROOF_RADIUS) - 0.022
    shell = np.maximum(shell, box(x - CAB_X, y, z - 0.6, 0.38, 0.5, 0.3))
    vent = box(x - CAB_X, y, z - 0.755, 0.12, 0.11, 0.03, 0.01)
    return np.minimum(shell, vent)


def bunker(x, y, z):
    x = x + 1.075
    return np.maximum(box(x, y, z - 0.03, 0.11, 0.4, 0.18, 0.02), -box(x, y, z - 0.2, 0.085, 0.37, 0.1))


def coal(x, y, z):
    x, a = x + 1.075, repeat(y, 0.105, -3, 3)
    front, back = sphere(x - 0.03, a, z - 0.19, 0.058), sphere(x + 0.045, repeat(y - 0.05, 0.11, -3, 2), z - 0.2, 0.06)
    return np.minimum(np.minimum(front, back), sphere(x, repeat(y - 0.02, 0.15, -1, 1), z - 0.245, 0.055))


def tool_box(x, y, z):
    """On the left running board only: the two sides should differ."""
    return box(x - 0.3, y - 0.37, z + 0.07, 0.14, 0.055, 0.06, 0.008)


def air_pump(x, y, z):
    """On the right running board only: a cylinder with fins."""
    x, y = x - 0.3, y + 0.385
    fins = cylinder(x, y, repeat(z - 0.02, 0.05, -1, 2), 0.075, 0.012)
    return np.minimum(cylinder(x, y, z - 0.0, 0.055, 0.15), fins)


def lamps(x, y, z):
    """Two red lamps behind, two in front."""
    y = np.abs(y)
    return np.minimum(sphere(x + 1.2, y - 0.3, z - 0.08, 0.04), sphere(x - 0.885, y - 0.33, z + 0.2, 0.045))


# ---------------------------------------------------------------- colours


def rgb(*colour) -> np.ndarray:
    return np.array(colour, np.float32)[:, None]


RED, BLUE, CREAM, GOLD = rgb(0.55, 0.03, 0.025), rgb(0.015, 0.09, 0.27), rgb(0.85, 0.68, 0.36), rgb(0.85, 0.5, 0.13)
BLACK, GREY = rgb(0.03, 0.032, 0.037), rgb(0.5, 0.53, 0.56)


def speckle(*coordinates) -> np.ndarray:
    """Pseudo-random numbers in 0..1, constant in each unit cell of the coordinates."""
    total = np.zeros(np.shape(coordinates[0]), np.uint32)
    for value, prime in zip(coordinates, (73856093, 19349663, 83492791), strict=False):
        total = total ^ (np.floor(value).astype(np.int32).astype(np.uint32) * np.uint32(prime))
    total = (total ^ (total >> 13)) * np.uint32(1274126177)
    return ((total ^ (total >> 16)) & 0xFFFF).astype(np.float32) / 65535


def where(condition, colour, otherwise):
    return np.where(condition, colour, otherwise)


def grass_colour(x, y, z):
    shade = 0.6 * speckle(x * 22, y * 22) + 0.4 * speckle(x * 50, y * 50)
    green = rgb(0.05, 0.17, 0.02) + rgb(0.10, 0.17, 0.03) * shade
    flower = speckle(x * 26 + 7, y * 26)
    green = where(flower > 0.965, CREAM, where(flower < 0.02, rgb(0.7, 0.08, 0.1), green))
    return where(z > -0.76, green, rgb(0.17, 0.09, 0.045) * (0.7 + 0.5 * speckle(z * 45)))


def ballast_colour(x, y, z):
    stone = speckle(30 * x + 0.6 * np.sin(40 * y), 30 * y + 0.6 * np.sin(37 * x), 30 * z + 0.5 * np.sin(31 * x))
    return rgb(0.30, 0.275, 0.245) * (0.45 + 0.9 * stone)


def wood_colour(x, y, z):
    return rgb(0.27, 0.14, 0.06) * (0.65 + 0.6 * speckle(x * 50, z * 50))


def board_colour(x, y, z):
    return where(z > -0.135, rgb(0.30, 0.19, 0.10) * (0.75 + 0.35 * speckle(x * 11)), RED)


def lining(u, v, hu, hv):
    """The outline of a rectangle, painted."""
    return np.abs(rectangle(u, v, hu, hv, 0.03)) < 0.012


def cab_colour(x, y, z):
    painted = where(windows(x, y, z) < 0.026, CREAM, RED)
    panel = lining(x - CAB_X, z - 0.05, 0.24, 0.105) & (np.abs(y) > 0.4)
    painted = where(panel | seven(x, y, z), CREAM, painted)
    inside = box(x - CAB_X, y, z - 0.3, 0.285, 0.395, 0.6) < 0
    return where(inside, rgb(0.42, 0.25, 0.11), painted)


def seven(x, y, z):
    """The locomotive's number on both sides of the cab, readable from outside."""
    u, v = np.where(y > 0, CAB_X - x, x - CAB_X), z - 0.05
    top = rectangle(u, v - 0.055, 0.05, 0.013)
    stroke = np.maximum(np.abs(u - 0.035 - 0.55 * (v - 0.06)) - 0.019, np.abs(v) - 0.068)
    return (np.minimum(top, stroke) < 0) & (np.abs(y) > 0.4)


def bunker_colour(x, y, z):
    sides = lining(x + 1.075, z - 0.03, 0.075, 0.13) & (np.abs(y) > 0.39)
    return where(sides | (lining(y, z - 0.03, 0.34, 0.13) & (x < -1.17)), GOLD, BLUE)


def roof_colour(x, y, z):
    return rgb(0.075, 0.085, 0.10) * (1 + 0.9 * (np.abs(repeat(x - CAB_X, 0.125, -3, 3)) < 0.012))


def cowcatcher_colour(x, y, z):
    return where(z < -0.5, GOLD, RED)


def chimney_colour(x, y, z):
    return where((z > 0.535) & (z < 0.585), RED, BLACK)


def splasher_colour(x, y, z):
    edge = np.hypot(np.abs(x - DRIVER_X[0]) - DRIVER_X[1], z - DRIVER_Z) > 0.262
    return where(edge, GOLD, BLUE)


def smokebox_colour(x, y, z):
    """Black, with a door of graphite and a painted circle on it."""
    rho = np.hypot(y, z - BOILER_Z)
    door = where(np.abs(rho - 0.165) < 0.014, RED, rgb(0.15, 0.155, 0.165))
    return where((x > 0.78) & (rho < 0.205), door, BLACK)


def boiler_colour(x, y, z):
    return where(x < -0.25, BLACK, BLUE)


class Material(NamedTuple):
    """A colour (linear RGB, 3 1, or a function of x y z), and how it shines."""

    colour: np.ndarray | Callable
    gloss: float = 0.0  # strength of the highlight and of the mirrored sky
    metal: bool = False  # a metal mirrors in its own colour and has little colour else


PAINT = 0.25  # gloss
STEEL, BRASS = Material(GREY, 0.8, True), Material(GOLD, 1.0, True)
PARTS: list[tuple[Callable, Material]] = [
    (ground, Material(grass_colour)),
    (ballast, Material(ballast_colour)),
    (sleepers, Material(wood_colour)),
    (rails, STEEL),
    (wheels, Material(RED, PAINT)),
    (tyres, STEEL),
    (rods, STEEL),
    (frame, Material(BLACK, 0.1)),
    (saddle, Material(BLACK, 0.1)),
    (running_board, Material(board_colour)),
    (splashers, Material(splasher_colour, PAINT)),
    (buffer_beam, Material(RED, PAINT)),
    (cowcatcher, Material(cowcatcher_colour, PAINT)),
    (boiler, Material(boiler_colour, 0.5)),
    (boiler_bands, BRASS),
    (smokebox, Material(smokebox_colour, 0.3)),
    (smokebox_fittings, BRASS),
    (chimney, Material(chimney_colour, 0.3)),
    (chimney_bands, BRASS),
    (steam_dome, BRASS),
    (sand_dome, Material(RED, 0.5)),
    (bell, BRASS),
    (headlamp, Material(RED, PAINT)),
    (lens, Material(rgb(0.95, 0.9, 0.7), 0.6)),
    (lens_rim, BRASS),
    (handrails, BRASS),
    (cylinders, Material(BLUE, PAINT)),
    (cylinder_caps, BRASS),
    (cab, Material(cab_colour, PAINT)),
    (roof, Material(roof_colour, 0.1)),
    (bunker, Material(bunker_colour, PAINT)),
    (coal, Material(rgb(0.02, 0.02, 0.022), 0.35)),
    (tool_box, Material(wood_colour)),
    (air_pump, Material(rgb(0.06, 0.22, 0.10), PAINT)),
    (lamps, Material(rgb(0.75, 0.05, 0.04), 0.8)),
]
