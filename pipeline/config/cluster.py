"""The Ray that does the work."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from pipeline.config.section import Count, Section, Text


class ReplicaRange(Section):
    """Bounds between which a pool of replicas grows and shrinks with its work, on clusters that add and take nodes."""

    min: Count
    """Replicas to begin with, and the fewest."""
    max: Count
    """The most."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            msg = f"min is {self.min}, above max, {self.max}"
            raise ValueError(msg)
        return self


REPLICA_KINDS = {int: "a number", dict: "a range", ReplicaRange: "a range", str: "a word"}


def _kind_of_replicas(value: object) -> str:
    return REPLICA_KINDS.get(type(value), "a number")


Replicas = Annotated[
    Annotated[Count, Tag("a number")]
    | Annotated[ReplicaRange, Tag("a range")]
    | Annotated[Literal["auto"], Tag("a word")],
    Discriminator(_kind_of_replicas),
]
"""Told apart by what is written, so that an error is about that."""


class ClusterConfig(Section):
    """The Ray that does the work; never part of the output's identity."""

    address: str = "auto"
    """`auto`: RAY_ADDRESS if set, else a local Ray of this run; `local`; or an address."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Must be given on a cluster that is not local."""
    replicas: Replicas = "auto"
    """Copies of the encoder, or `{min: …, max: …}`; `auto` by the devices or cores that are there, and memory."""
    gpus_per_replica: Annotated[float, Field(gt=0, le=1, strict=True)] = 1.0
    """Share of a GPU that a replica takes: 0.5 puts two on each."""
    accelerator_type: Text | None = None
    """Only GPUs of this type, as Ray names it: `H100`, `L4`, …"""
    labels: dict[Text, Text] = {}  # noqa: RUF012 - pydantic copies it
    """Only nodes with these Ray labels hold replicas: `{ray.io/market-type: spot}`; values may be `in(a,b)`, `!a`."""
